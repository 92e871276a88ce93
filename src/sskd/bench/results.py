"""What the runs of a grid came to: cells read from run directories, and rows over seeds."""

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sskd.bench.labels import Labels
from sskd.bench.task import Task
from sskd.errors import UserError
from sskd.run_files import LogLine, parse_line, read_config, read_result, whole_lines
from sskd.validation import convert

Values = Mapping[str, Any]
KD_LABEL, ALONE_LABEL = "kd", "ce"

_NESTED = re.compile(rb', "[^"]*": \{.*')  # from the first nested object to the line's end; in a text it would be \\"

Status = Literal["finished", "begun", "waiting"]


@dataclass(frozen=True)
class Cell:
    """One training. Accuracies are top-1 % on the test split; costs are of training, without evaluation.

    `stages` maps the names of the stages before the student's own to their seconds of computing; empty where they were
    reused from another cell.
    """

    task: Task
    status: Status
    last: float | None = None
    best: float | None = None  # at the epoch that was best on validation
    best_epoch: int | None = None
    epochs: int = 0
    seconds: float = 0.0  # of wall clock, in the last stage
    cpu_seconds: float = 0.0  # where a GPU computes, the clock's
    stages: Mapping[str, float] = field(default_factory=dict)
    peak_mib: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Pair, label, seed and so on."""
        return self.task.facts


def read_cell(task: Task) -> Cell:
    """A cell as its run directory has it; one whose files are damaged counts as not finished."""
    if not task.begun:
        return Cell(task, "waiting")
    try:
        config = read_config(task.folder / "config.json")
        result = read_result(task.folder / "result.json") if task.finished else None
        return cell_of(task, config, result, read_log(task.folder / "log.jsonl"))
    except UserError:
        return Cell(task, "begun")


def cell_of(task: Task, config: Values, result: Values | None, records: Sequence[Values]) -> Cell:
    """A cell of what its run directory holds; `result` is None where the run is not finished."""
    if result is None:
        return Cell(task, "begun", epochs=len(records), config=config)
    own = result["last"].get("stage", "")
    clock = "seconds" if on_gpu(config) else "cpu_seconds"
    timed = [record for record in records if "seconds" in record]
    stages: dict[str, float] = {}
    for record in timed:
        if record["stage"] != own:
            stages[record["stage"]] = stages.get(record["stage"], 0.0) + record.get(clock, record["seconds"])
    mine = [record for record in timed if record["stage"] == own]
    best = result.get("best")
    return Cell(
        task,
        "finished",
        last=100 * result["last"]["test"]["top1"],
        best=100 * best["test"]["top1"] if best else None,
        best_epoch=best["epoch"] if best else None,
        epochs=len(mine),
        seconds=sum(record["seconds"] for record in mine),
        cpu_seconds=sum(record.get(clock, record["seconds"]) for record in mine),
        stages=stages,
        peak_mib=max((record.get("peak_mib", 0) for record in timed), default=0),
        config=config,
    )


def on_gpu(config: Values) -> bool:
    """Whether a run computed on a GPU: the seconds of its process are then not those of its computing."""
    return str((config.get("execution") or {}).get("device", "")).startswith("cuda")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log, up to the first that is damaged."""
    lines = whole_lines(path)
    try:  # at once: quicker, where no line is damaged
        records: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")
        convert(records, list[LogLine], str(path))
        return records
    except (ValueError, RecursionError, UserError):
        pass
    found = []
    for line in lines:
        try:
            found.append(parse_line(line, str(path)))
        except UserError:
            break
    return found


def read_costs(path: Path) -> list[dict[str, Any]]:
    """A log without what its lines nest, losses and accuracies: a fraction of the work where thousands are read.

    Lines of which costs do not come first are read whole.
    """
    if not path.exists():
        return []
    text = _NESTED.sub(b"}", path.read_bytes())
    try:
        found = list(json.loads(b"[" + text[: text.rfind(b"\n") + 1].strip().replace(b"\n", b",") + b"]"))
    except (ValueError, RecursionError):
        return read_log(path)
    return found if all(isinstance(one, dict) and "cpu_seconds" in one for one in found) else read_log(path)


def progress(task: Task) -> tuple[str, int]:
    """Stage and epoch that a run has last finished."""
    records = [record for record in read_log(task.folder / "log.jsonl") if "epoch" in record]
    return (str(records[-1]["stage"]), int(records[-1]["epoch"])) if records else ("", 0)


@dataclass(frozen=True)
class Row:
    """One line of the table: a pair, a method under its label, what students see; over seeds."""

    pair: tuple[str, str]
    label: str
    labels: Labels
    cells: tuple[Cell, ...]

    @property
    def finished(self) -> tuple[Cell, ...]:
        """Those with a result."""
        return tuple(cell for cell in self.cells if cell.status == "finished")

    def values(self, kind: Literal["last", "best"]) -> dict[int, float]:
        """Accuracy by seed."""
        found = {cell.facts["seed"]: getattr(cell, kind) for cell in self.finished}
        return {seed: value for seed, value in found.items() if value is not None}


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and the sample's standard deviation where there are two values or more."""
    if not values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def rows_of(cells: Sequence[Cell]) -> list[Row]:
    """Cells of students, gathered over seeds; in the order of the recipe."""
    found: dict[tuple[tuple[str, str], str, Labels], list[Cell]] = {}
    for cell in cells:
        facts = cell.facts
        if cell.task.kind == "student":
            key = ((facts["teacher"], facts["student"]), facts["label"], Labels.read(facts))
            found.setdefault(key, []).append(cell)
    return [Row(*key, tuple(group)) for key, group in found.items()]


@dataclass(frozen=True)
class Compared:
    """A difference of means in points, paired by seed, and the p-value of a two-sided paired t-test."""

    difference: float
    n: int
    p: float | None  # None below three seeds: two differences have no spread worth the name

    @property
    def mark(self) -> str:
        """`*` below 0.05, `**` below 0.01."""
        return "" if self.p is None or self.p >= 0.05 else "**" if self.p < 0.01 else "*"


def compare(row: Row, other: Row, kind: Literal["last", "best"] = "last") -> Compared | None:
    """A row against another, on the seeds that both have; None where there are none."""
    from scipy.special import stdtr  # not needed to train; a tenth of what scipy.stats takes to import

    ours, theirs = row.values(kind), other.values(kind)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds or row is other:
        return None
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    p = None
    if len(seeds) > 2 and len(set(differences)) > 1:
        t = statistics.fmean(differences) / (statistics.stdev(differences) / math.sqrt(len(seeds)))
        p = 2 * float(stdtr(len(seeds) - 1, -abs(t)))
    return Compared(statistics.fmean(differences), len(seeds), p)
