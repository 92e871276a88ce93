"""A grid from its recipe to its table."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, Protocol

import torch

from sskd.bench.beforehand import Sources, misfits, refuse_labels, refuse_missing
from sskd.bench.grid import tasks_of
from sskd.bench.live import Watch
from sskd.bench.local import LocalEngine
from sskd.bench.recipe import Recipe, load_recipe
from sskd.bench.results import read_cell
from sskd.bench.table import write
from sskd.bench.task import Outcome, Task, changed
from sskd.errors import UserError, unknown
from sskd.files import alone_in
from sskd.ranges import need_between, need_few, need_some, refuse_empty
from sskd.terminal import Terminal


class Engine(Protocol):
    """Who runs tasks."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        """The outcome of each task as it ends, and None in between."""
        ...


def bench(
    recipe: str,
    data: str | None = None,
    out: str | None = None,
    methods: list[str] | None = None,
    seeds: list[int] | None = None,
    jobs: int | None = None,
    processes: int = 1,
    engine: Literal["local", "ray"] = "local",
    gpus: float | None = None,
    address: str | None = None,
    only_table: bool = False,
) -> None:
    """Run a grid of pairs, methods and seeds, and write its table; what is finished already is not run again.

    Args:
        recipe: the name of a recipe that comes with sskd (see `sskd list recipes`), or a YAML file.
        data: a data set in place of the recipe's.
        out: where everything is kept: runs, cache, logs and tables; runs/RECIPE where it is not given.
        methods: labels of the recipe, to run these alone; the table shows all.
        seeds: in place of the recipe's.
        jobs: trainings at a time; one for each GPU, or as many as the recipe's threads leave room for.
        processes: of each training, started with torchrun; with GPUs, each process gets one.
        engine: local runs processes of this machine; ray runs them on a Ray cluster (pip install sskd[ray]).
        gpus: with ray, GPUs for a training, such as 0.5; 1 where there are any.
        address: with ray, the cluster's, or local for a new one; the running one, else a new one, by default.
        only_table: run nothing, write the table of what there is.

    Raises:
        UserError: a recipe that is not understood; at the end, if trainings have failed.
    """
    refuse_empty(recipe=recipe, data=data, out=out, address=address)
    if methods is not None:
        need_some("methods", methods)
    if seeds is not None:
        need_some("seeds", seeds)
    plan = load_recipe(recipe, data=data, seeds=seeds)
    folder = Path(out or f"runs/{plan.name}")
    tasks = tasks_of(plan, folder)
    for label in methods or []:
        if label not in plan.methods:
            raise unknown(f"label of the recipe {plan.name}", label, plan.methods)
    wanted = [task for task in tasks if not methods or task.facts.get("label", methods[0]) in methods]
    failed: dict[str, str] = {}
    with nullcontext() if only_table else alone_in(folder):  # one may look at a table while others work on it
        if not only_table:
            worker = engine_of(plan, folder, engine, jobs, gpus, address, processes)
            failed = run_tasks(wanted, worker, lambda failed: _write(plan, folder, tasks, failed))
        table = _write(plan, folder, tasks, failed)
    console = Terminal()
    console.print(table.read_text(), highlight=False, soft_wrap=True, markup=False)
    console.print(f"Kept in {table.parent}: table.md, table.csv, table.json.", highlight=False, soft_wrap=True)
    refuse_failed(failed, len(wanted), folder)


def refuse_failed(failed: Mapping[str, str], count: int, folder: Path) -> None:
    """Say which of so many trainings failed.

    Raises:
        UserError: names some of them, if there are any.
    """
    if failed:
        shown = "; ".join(f"{name}: {message}" for name, message in list(failed.items())[:3])
        raise UserError(
            f"{len(failed)} of {count} trainings failed ({shown}). Their output is in {folder}/logs; the same "
            "command tries them again and leaves the others as they are."
        )


def run_tasks(wanted: Sequence[Task], engine: Engine, write: Callable[[dict[str, str]], object]) -> dict[str, str]:
    """Run what is not finished; messages of what failed, by task. `write` is told of them after each training.

    Raises:
        UserError: missing weights, labels that cannot be as the grid wants them; nothing has been trained then.
    """
    refuse_missing(wanted)
    sources = Sources()
    refuse_labels(wanted, sources)
    unfit = misfits(wanted, sources)
    with Watch(wanted) as watch:
        for task in wanted:
            if why := changed(task) or unfit.get(task.name):
                watch.ended(Outcome(task, False, why))
            elif task.teacher in watch.failed:
                watch.ended(Outcome(task, False, f"its teacher {task.teacher} failed: {watch.failed[task.teacher]}"))
        for outcome in engine.run([task for task in wanted if task.name not in watch.failed]):
            watch.tick()
            if outcome is not None:
                watch.ended(outcome)
                write(watch.failed)
        return watch.failed


def _write(plan: Recipe, folder: Path, tasks: Sequence[Task], failed: dict[str, str]) -> Path:
    return write(folder, plan, [read_cell(task) for task in tasks], failed)


def engine_of(
    plan: Recipe,
    folder: Path,
    name: str,
    jobs: int | None,
    gpus: float | None,
    address: str | None,
    processes: int = 1,
) -> Engine:
    """The engine of this name, for a recipe's trainings.

    Raises:
        UserError: arguments that do not fit it.
    """
    need_between("jobs", jobs, 1)
    need_few("processes", processes, 1)
    need_between("gpus", gpus, 0)
    threads = plan.training.get("threads")
    if name == "ray":
        if processes > 1:
            raise UserError("--engine ray trains in one process each. Leave --processes out, or say --engine local.")
        from sskd.bench.ray_engine import RayEngine  # an extra

        share = (1.0 if torch.cuda.is_available() else 0.0) if gpus is None else gpus
        return RayEngine(jobs, share, float(threads or 1), address, folder / "logs")
    if gpus is not None or address is not None:
        raise UserError("--gpus and --address are for --engine ray. Leave them out, or say --engine ray.")
    devices = _devices() if str(plan.training.get("device", "auto")) in ("auto", "cuda") else []
    cores = os.cpu_count() or 1
    room = len(devices) // processes or max(1, cores // ((threads or cores) * processes))
    return LocalEngine(jobs or room, folder / "logs", devices, processes)


def _devices() -> list[str]:
    """Names of the GPUs that this process may use."""
    if not torch.cuda.is_available():
        return []
    return (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))).split(",")
