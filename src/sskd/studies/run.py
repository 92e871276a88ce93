"""A study from its grid to its tables."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from sskd.bench.grid import tasks_of
from sskd.bench.results import Cell, read_cell
from sskd.bench.run import engine_of, refuse_failed, run_tasks
from sskd.bench.task import Task
from sskd.files import alone_in
from sskd.studies.base import Base, Study
from sskd.studies.results import write
from sskd.terminal import Terminal


def run(study: Study, on: Base) -> None:
    """Train the study's cells that are not there, in the folder that all studies of its base share; write its tables.

    Raises:
        UserError: a grid that is not understood; at the end, if trainings have failed.
    """
    folder = on.folder
    tasks = tasks_of(study.recipe, folder)
    place = folder / study.name

    def tables(failed: Mapping[str, str]) -> Path:
        return write(place, study, _cells(tasks), dict(failed))

    failed: dict[str, str] = {}
    with nullcontext() if on.only_table else alone_in(folder):  # one may look at a table while others work on it
        if not on.only_table:
            engine = engine_of(study.recipe, folder, on.engine, on.jobs, on.gpus, on.address)
            failed = run_tasks(tasks, engine, tables)
        table = tables(failed)
    console = Terminal()
    console.print(table.read_text(), highlight=False, soft_wrap=True, markup=False)
    console.print(f"Kept in {place}: table.md, table.csv, table.json, study.json.", highlight=False, soft_wrap=True)
    refuse_failed(failed, len(tasks), folder)


def _cells(tasks: Sequence[Task]) -> list[Cell]:
    return [read_cell(task) for task in tasks]
