"""What lies in the folders of a report: runs, tables of benches, studies."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sskd.bench.results import Cell, cell_of, on_gpu, read_costs, read_log
from sskd.bench.table import unit_of
from sskd.bench.task import Task
from sskd.errors import UserError
from sskd.files import held
from sskd.report.shapes import Study, Table
from sskd.run_files import LogLine, RunConfig, RunResult, log_damage
from sskd.validation import convert

Values = Mapping[str, Any]
RUN_FILES = ("config.json", "log.jsonl", "result.json")
OUTER = 3  # folders up from a run to its bench: cells/PAIR/RUN
PASSED_BY = ("student", "tensorboard", "analyses", "cache", "logs")  # folders that hold no runs


@dataclass(frozen=True)
class FoundRun:
    """A run directory. `problem` says what could not be read of it."""

    folder: Path
    state: Literal["finished", "running", "begun", "broken"]
    config: Values = field(default_factory=dict)
    result: Values | None = None
    cell: Cell | None = None  # accuracies and costs; None where there is no config
    done: int = 0  # lines of the log
    seconds: float = 0.0  # of computing, in all of its stages: the process's, on a GPU the clock's
    problem: str = ""
    analyses: Mapping[str, Values] = field(default_factory=dict)

    @property
    def arguments(self) -> Values:
        """What it was started with."""
        return dict(self.config.get("arguments") or {})

    @property
    def data(self) -> Values:
        """What its config says of the data."""
        return dict(self.config.get("data") or {})

    def records(self) -> list[Values]:
        """The log, read again: those of thousands of runs would fill the memory."""
        return _epochs(read_log(self.folder / "log.jsonl"))

    @property
    def unit(self) -> str:
        """What its seconds are seconds of."""
        return unit_of(self.config)

    @property
    def is_teacher(self) -> bool:
        """Whether it lies where a bench keeps its teachers."""
        return self.folder.parent.name == "teachers"


@dataclass(frozen=True)
class FoundTable:
    """A folder with the table.json of a bench; for a study, also its study.json."""

    folder: Path
    table: Values
    study: Values | None = None


@dataclass
class Found:
    """All that the folders hold, and what could not be read."""

    runs: list[FoundRun] = field(default_factory=list)
    tables: list[FoundTable] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    held: set[Path] = field(default_factory=set)  # folders in which a process trains now


def find(places: Sequence[str]) -> Found:
    """Look through folders, at any depth.

    Raises:
        UserError: a place that is no folder, or folders without a run, a table or a study.
    """
    if not places:
        raise UserError("Say what to report on: sskd report DIR..., the folders of runs, benches or studies.")
    found, seen = Found(), set[Path]()
    for place in places:
        path = Path(place)
        if not place:
            raise UserError("A path is empty. Give the folders of runs, benches or studies.")
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise UserError(f"{place} {what}. Give the folder of a run, a bench or a study.")
        found.held |= {one for one in path.resolve().parents[:OUTER] if held(one)}
        for folder in _folders(path):
            if (real := folder.resolve()) not in seen:
                seen.add(real)
                try:
                    _look(folder, found)
                except OSError as error:
                    found.problems.append(f"{folder} cannot be looked into ({error.strerror}).")
    if not (found.runs or found.tables or found.problems):
        raise UserError(
            f"No runs in {', '.join(places)}: expected folders with config.json, log.jsonl or result.json, or a "
            "bench's table.json. Give the folder that `sskd distill --out` or `sskd bench --out` wrote to."
        )
    return found


def _folders(top: Path) -> list[Path]:
    """All folders that may hold something, in order; not those inside of runs."""
    folders = []
    for here, names, files in os.walk(top, followlinks=False):
        folders.append(Path(here))
        inside = any(name in files for name in RUN_FILES)
        names[:] = [] if inside else sorted(n for n in names if n not in PASSED_BY and not n.startswith("."))
    return folders


def _look(folder: Path, found: Found) -> None:
    names = {entry.name for entry in folder.iterdir()}
    if held(folder):
        found.held.add(folder.resolve())
    if not names.isdisjoint(RUN_FILES):
        analyses, problems = _analyses(folder / "analyses")
        found.runs.append(replace(read_run(folder), analyses=analyses))
        found.problems += problems
    for name in ("table.json", "study.json"):
        if name in names and name == "study.json" and "table.json" in names:
            continue  # read with its table
        if name in names:
            table, problem = read_object(folder / "table.json") if "table.json" in names else ({}, "")
            study, other = read_object(folder / "study.json") if "study.json" in names else (None, "")
            found.problems += [text for text in (problem, other) if text]
            problems = [_unlike(table or {}, Table, folder / "table.json"),
                        _unlike(study or {}, Study, folder / "study.json")]  # fmt: skip
            if any(problems):
                found.problems += [f"{problem} It is left out." for problem in problems if problem]
            elif table or study:
                found.tables.append(FoundTable(folder, table or {}, study))


def read_object(path: Path) -> tuple[dict[str, Any] | None, str]:
    """A JSON object, or None and what is wrong with the file."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return None, f"{path} cannot be read ({' '.join(str(error).split())})."
    return (value, "") if isinstance(value, dict) else (None, f"{path} holds no object.")


def read_run(folder: Path) -> FoundRun:
    """A run as far as it can be read. A last line of the log that was cut off in writing is no problem."""
    files = {name: folder / name for name in RUN_FILES}
    if not files["config.json"].exists():
        return FoundRun(folder, "broken", problem="config.json is missing.")
    config, problem = read_object(files["config.json"])
    if config is None:
        return FoundRun(folder, "broken", problem=problem)
    if problem := _unlike(config, RunConfig, files["config.json"]):
        return FoundRun(folder, "broken", problem=problem)
    result, problem = read_object(files["result.json"]) if files["result.json"].exists() else (None, "")
    if result is not None and (problem := _unlike(result, RunResult, files["result.json"])):
        result = None
    cell, records = None, list[Values]()
    try:
        lines = read_costs(files["log.jsonl"])
        records = _epochs(lines)
        if damage := _unlike(lines, list[LogLine], files["log.jsonl"]) or log_damage(files["log.jsonl"], len(lines)):
            problem, records = problem or damage, []
        else:
            cell = cell_of(Task(folder.as_posix(), "student", folder, {}), config, result, records)
    except OSError as error:
        problem = f"{files['log.jsonl']} cannot be read ({error.strerror})."
    clock = "seconds" if on_gpu(config) else "cpu_seconds"
    seconds = sum(record.get(clock, record.get("seconds", 0.0)) for record in records) if cell else 0.0
    state: Literal["finished", "running", "begun", "broken"]
    state = "broken" if problem else "finished" if result else "running" if held(folder) else "begun"
    return FoundRun(folder, state, config, result, cell, len(records), seconds, problem)


def _unlike(value: Any, shape: Any, path: Path) -> str:
    """Where and how values differ from those that a run or a bench writes; empty where they do not."""
    try:
        convert(value, shape, str(path))
    except UserError as error:
        return str(error)
    return ""


def _epochs(found: Sequence[Any]) -> list[Values]:
    return [record for record in found if isinstance(record, dict) and "stage" in record and "epoch" in record]


def _analyses(folder: Path) -> tuple[dict[str, Values], list[str]]:
    """What was written of a run afterwards, by the file's name, and what is wrong with damaged files."""
    read = {path.stem: read_object(path) for path in sorted(folder.glob("*.json"))} if folder.is_dir() else {}
    whole: dict[str, Values] = {name: values for name, (values, _) in read.items() if values is not None}
    return whole, [problem for _, problem in read.values() if problem]
