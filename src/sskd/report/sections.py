"""Tables of a report: one section for each bench and for each data set of the other runs."""

import json
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from sskd.bench.labels import Labels
from sskd.bench.results import Cell
from sskd.bench.table import tabulated, unit_of
from sskd.bench.task import Task
from sskd.report.found import Found, FoundRun, FoundTable, Values


@dataclass(frozen=True)
class Group:
    """A pair of networks and what students see: rows that may be compared."""

    teacher: str
    student: str
    labels: Labels
    rows: Sequence[Values]

    @property
    def title(self) -> str:
        """Teacher -> student, and what students see where that is not all."""
        share = f", {self.labels.said}" if self.labels.said else ""
        return (f"{self.teacher} → {self.student}" if self.teacher else self.student) + share

    @property
    def unit(self) -> str:
        """What its costs are seconds of."""
        return units(row["unit"] for row in self.rows if row.get("cpu_seconds"))

    @property
    def begun(self) -> Sequence[Values]:
        """Rows that say something: those with a result or a failure."""
        return [row for row in self.rows if row["n"] or row["failed"]]

    @property
    def waiting(self) -> Sequence[str]:
        """Labels of the other rows."""
        return [str(row["label"]) for row in self.rows if not (row["n"] or row["failed"])]


def units(found: Iterable[str]) -> str:
    """`CPU s`, `GPU s` or both, of what was measured."""
    return " or ".join(dict.fromkeys(found)) or "CPU s"


@dataclass(frozen=True)
class Section:
    """Runs of one bench, or of one data set."""

    title: str
    about: str
    data: str  # what the runs were measured on, in words
    groups: Sequence[Group]
    runs: Sequence[FoundRun]
    study: Values | None = None
    command: str = ""
    notes: Sequence[str] = ()
    labels: dict[Path, str] = field(default_factory=dict)  # of runs, as in the table
    waiting: int = 0  # trainings that have no result yet
    busy: bool = False  # a process makes the bench, or trains one of its runs

    @property
    def left(self) -> str:
        """How many trainings have no result, and whether somebody is at it; empty where all have."""
        if not self.waiting:
            return ""
        count = f"{self.waiting} training{' has' if self.waiting == 1 else 's have'} no result yet"
        return f"{count}; a process is training here" if self.busy else f"{count}, and no process is training here"


def sections_of(found: Found) -> list[Section]:
    """Benches and studies first, then the other runs by data."""
    sections, taken = list[Section](), set[Path]()
    for table in found.tables:
        own = [run for run in found.runs if _belongs(run, table)]
        taken |= {run.folder for run in own}
        sections.append(_of_table(table, own, _busy(table, found) or any(run.state == "running" for run in own)))
    rest: dict[str, list[FoundRun]] = {}
    for run in found.runs:
        if run.folder not in taken:
            rest.setdefault(data_of(run), []).append(run)
    others = ": runs that no table lists" if sections else ""
    return [*sections, *(_of_runs(data, runs, others) for data, runs in rest.items())]


def _busy(table: FoundTable, found: Found) -> bool:
    """A study's trainings are made in the folder that it shares with others."""
    folder = table.folder.resolve()
    return not found.held.isdisjoint({folder, folder.parent} if table.study else {folder})


def data_of(run: FoundRun) -> str:
    """What a run was measured on, in words; runs of which this differs are never compared."""
    data = run.data
    if not data:
        return "data not known"
    classes = len(run.config.get("class_names") or [])
    return f"{data.get('name')}, {data.get('test_images', 0):,} test images of {classes} classes"


def _belongs(run: FoundRun, table: FoundTable) -> bool:
    """Runs that the table names; of a bench that names none, all of its folder. A study's runs lie beside it."""
    names = {str(one.get("folder")) for one in table.table.get("runs") or []}
    place = table.folder.parent if table.study else table.folder
    named = _key(run.folder, names) is not None if names or table.study else True
    return named and run.folder.is_relative_to(place)


def _of_table(table: FoundTable, runs: list[FoundRun], busy: bool) -> Section:
    recipe, rows = table.table.get("recipe") or {}, _whole(table.table.get("rows") or [])
    name = str((table.study or {}).get("study") or recipe.get("name") or table.folder.name)
    measured = {data_of(run) for run in runs if run.data}
    data = " and ".join(sorted(measured)) if measured else Path(str(recipe.get("data", "data not known"))).name
    listed = table.table.get("runs") or []
    labels = {str(one.get("folder")): _called(one) for one in listed if one.get("label")}
    by_folder = {run.folder: labels[key] for run in runs for key in [_key(run.folder, labels)] if key}
    command = str((table.study or {}).get("command") or "")
    if not command and recipe:
        command = _bench(name, recipe, table.folder)
    about = str((table.study or {}).get("about") or recipe.get("about") or "")
    missing = sum(int(row["of"]) - int(row["n"]) for row in rows if not row.get("failed"))
    notes = [str(note) for note in (table.study or {}).get("notes") or []]
    open_ = {str(one.get("folder")) for one in listed if one.get("status", "finished") != "finished"}
    if late := sum(run.state == "finished" and _key(run.folder, open_) is not None for run in runs):
        notes.insert(0, f"This table is older than {late} of its trainings, which have finished since. To write it "
                        f"anew: {command} --only_table true")  # fmt: skip
    return Section(name, about, data, _grouped(rows), runs, table.study, command, notes, by_folder, missing, busy)


def _called(run: Values) -> str:
    """A method's label, with what its student sees where that is not all."""
    seen = Labels.read({key: value for key, value in run.items() if value is not None})
    return f"{run['label']}" + (f", {seen.short}" if seen != Labels() else "")


def _bench(name: str, recipe: Values, folder: Path) -> str:
    """The command of a bench; its recipe comes with sskd, or is a file of this name."""
    packaged = (resources.files("sskd.bench") / "recipes" / f"{name}.yaml").is_file()
    words = ["sskd", "bench", name if packaged else f"{name}.yaml"]
    words += ["--data", str(recipe["data"])] if recipe.get("data") else []
    words += ["--seeds", json.dumps(recipe["seeds"])] if recipe.get("seeds") else []
    return shlex.join([*words, "--out", folder.as_posix()])


def _key(folder: Path, names: Collection[str]) -> str | None:
    parts = folder.parts
    return next((key for n in (2, 1, 3) if (key := "/".join(parts[-n:])) in names), None)


_NEEDED = ("teacher", "student", "fraction", "label", "method", "n", "of", "last_mean", "last_deviation", "published")


def _whole(rows: Sequence[Any]) -> list[Values]:
    """Rows with every key that is read of them."""
    usual: dict[str, Any] = {
        **dict.fromkeys(_NEEDED),
        "fraction": 1.0,
        "n": 0,
        "of": 0,
        "unit": "CPU s",
        "stage_seconds": {},
        "failed": "",
    }
    return [{**usual, **row} for row in rows if isinstance(row, dict)]


def _grouped(rows: Sequence[Values]) -> list[Group]:
    groups: dict[tuple[str, str, Labels], list[Values]] = {}
    for row in rows:
        key = (
            str(row["teacher"] or ""),
            str(row["student"] or ""),
            Labels.read({k: v for k, v in row.items() if v is not None}),
        )
        groups.setdefault(key, []).append(row)
    return [Group(*key, sorted(group, key=_order)) for key, group in groups.items()]


def _order(row: Values) -> tuple[bool, bool, float]:
    """The teacher, then the best first, then what has no result."""
    mean = row["last_mean"]
    return row["label"] != "teacher", mean is None, -(mean or 0.0)


def _of_runs(data: str, runs: list[FoundRun], said: str) -> Section:
    """Runs that no table lists: put into rows by pair, label and share."""
    taught = {_taught_by(run) for run in runs}
    teachers = [run for run in runs if run.is_teacher or taught & _addresses(run)]
    teaching = {run.folder for run in teachers}
    students = [run for run in runs if run.folder not in teaching and run.config]
    by_place = {address: run.folder.as_posix() for run in teachers for address in _addresses(run)}
    labels = _labels(students)
    cells = [_cell(Task(run.folder.as_posix(), "teacher", run.folder, {}, facts=_facts(run)), run) for run in teachers]
    students.sort(key=lambda run: (_taught_by(run) or "") not in by_place)  # a row's first run says who its teacher is
    for run in students:
        facts = {**_facts(run), "label": labels[run.folder]}
        if not facts["teacher"]:
            facts["teacher"] = _only_teacher(facts["student"], students)
        task = Task(run.folder.as_posix(), "student", run.folder, {}, by_place.get(_taught_by(run) or ""), facts)
        cells.append(_cell(task, run))
    rows = _whole(tabulated(cells, {}))
    if not students:  # teachers alone are what the report is about
        rows = [_alone(cell) for cell in cells]
    states = [run.state for run in runs]
    waiting, busy = states.count("begun") + states.count("running"), "running" in states
    title = data.split(",")[0] + said
    return Section(title, "", data, _grouped(rows), runs, labels=labels, waiting=waiting, busy=busy)


def _taught_by(run: FoundRun) -> str | None:
    """The weights of its teacher, or where that lay: folders are moved."""
    place, weights = (run.arguments.get("teacher") or {}).get("place"), (run.config.get("teacher") or {}).get("weights")
    return str(weights) if weights else _resolved(str(place)) if place else None


def _addresses(run: FoundRun) -> set[str]:
    """By what students may name it as their teacher."""
    weights = (run.result or {}).get("weights")
    return {_resolved(run.folder.as_posix()), *([str(weights)] if weights else [])}


@cache
def _resolved(place: str) -> str:
    """Asked for once: thousands of runs share a few teachers."""
    return Path(place).resolve().as_posix()


def _facts(run: FoundRun) -> dict[str, Any]:
    arguments = run.arguments
    training = arguments.get("training") or {}
    network = str(arguments.get("network") or "?")
    teacher = str((run.config.get("teacher") or {}).get("architecture") or "")
    facts = {"teacher": teacher, "student": network, "method": arguments.get("method"), "seed": training.get("seed", 0)}
    seen = {
        name: arguments.get(name) or training.get(name) for name in ("fraction", "per_class", "noise", "noise_kind")
    }
    return {**facts, **{name: value for name, value in seen.items() if value is not None}}


def _cell(task: Task, run: FoundRun) -> Cell:
    return replace(run.cell, task=task) if run.cell else Cell(task, "begun")


def _alone(cell: Cell) -> Values:
    facts = cell.facts
    row = _whole([{"teacher": "", "student": facts["student"], "label": facts["method"], "method": facts["method"]}])[0]
    return {**row, "n": int(cell.status == "finished"), "of": 1, "last_mean": cell.last, "best_mean": cell.best,
            "unit": unit_of(cell.config), "cpu_seconds": cell.cpu_seconds or None,
            "peak_mib": cell.peak_mib or None}  # fmt: skip


def _only_teacher(student: str, runs: Sequence[FoundRun]) -> str:
    """The teacher of a student that was trained alone: whom its like has, where that is one."""
    found = {str((run.config.get("teacher") or {}).get("architecture") or "") for run in runs
             if run.arguments.get("network") == student} - {""}  # fmt: skip
    return found.pop() if len(found) == 1 else ""


def _labels(runs: Sequence[FoundRun]) -> dict[Path, str]:
    """The method of each run, with what sets it apart from other runs of the same method but for the seed."""
    kinds: dict[str, dict[Path, dict[str, Any]]] = {}
    for run in runs:
        arguments = run.arguments
        training = {k: v for k, v in (arguments.get("training") or {}).items() if k not in ("seed", "threads")}
        flat = {**(arguments.get("options") or {}), **training}
        kinds.setdefault(str(arguments.get("method")), {})[run.folder] = flat
    labels = {}
    for method, members in kinds.items():
        keys = sorted({key for flat in members.values() for key in flat})
        varying = [
            key for key in keys if len({json.dumps(flat.get(key), sort_keys=True) for flat in members.values()}) > 1
        ]
        for folder, flat in members.items():
            apart = ", ".join(f"{key} {json.dumps(flat.get(key))}" for key in varying[:4])
            labels[folder] = f"{method} ({apart})" if apart else method
    return labels
