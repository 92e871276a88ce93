"""Tables of a report: one section for each bench and for each data set of the other runs."""

import json
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from sskd.bench.labels import Labels
from sskd.report.found import Found, FoundRun, FoundTable, Values
from sskd.report.groups import Group, grouped, whole
from sskd.report.untabled import tables_of


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
    methods: dict[Path, str] = field(default_factory=dict)  # of runs, the same whatever they were trained on
    teachers: Collection[Path] = ()  # runs that teach, beside those that lie where a bench keeps them
    waiting: int = 0  # trainings that have no result yet
    busy: bool = False  # a process makes the bench, or trains one of its runs

    def is_teacher(self, run: FoundRun) -> bool:
        """Whether a run teaches, or was trained to."""
        return run.is_teacher or run.folder in self.teachers

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
    return f"{data.get('name')}, {data.get('test_images') or 0:,} test images of {classes} classes"


def _belongs(run: FoundRun, table: FoundTable) -> bool:
    """Runs that the table names; of a bench that names none, all of its folder. A study's runs lie beside it."""
    names = {str(one.get("folder")) for one in table.table.get("runs") or []}
    place = table.folder.parent if table.study else table.folder
    named = _key(run.folder, names) is not None if names or table.study else True
    return named and run.folder.is_relative_to(place)


def _of_table(table: FoundTable, runs: list[FoundRun], busy: bool) -> Section:
    recipe, rows = table.table.get("recipe") or {}, whole(table.table.get("rows") or [])
    name = str((table.study or {}).get("study") or recipe.get("name") or table.folder.name)
    measured = {data_of(run) for run in runs if run.data}
    data = " and ".join(sorted(measured)) if measured else Path(str(recipe.get("data", "data not known"))).name
    listed = table.table.get("runs") or []
    labels = {str(one.get("folder")): _called(one) for one in listed if one.get("label")}
    names = {str(one.get("folder")): str(one["label"]) for one in listed if one.get("label")}
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
    methods = {run.folder: names[key] for run in runs for key in [_key(run.folder, names)] if key}
    return Section(name, about, data, grouped(rows), runs, table.study, command, notes, by_folder, methods,
                   waiting=missing, busy=busy)  # fmt: skip


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


def _of_runs(data: str, runs: list[FoundRun], others: str) -> Section:
    """Runs that no table lists."""
    tables = tables_of(runs)
    states = [run.state for run in runs]
    waiting, busy = states.count("begun") + states.count("running"), "running" in states
    return Section(data.split(",")[0] + others, "", data, tables.groups, runs, labels=tables.labels,
                   methods=tables.methods, teachers=tables.teachers, waiting=waiting, busy=busy)  # fmt: skip
