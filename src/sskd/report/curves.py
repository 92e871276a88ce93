"""Curves of logs: every loss term and every measurement, by stage and split, thinned out to fit a page."""

from collections.abc import Sequence
from typing import Any

from sskd.bench.results import ALONE_LABEL, KD_LABEL
from sskd.report.configs import label_of
from sskd.report.found import FoundRun, Values
from sskd.report.plots import Number, Plot, Series, View
from sskd.report.sections import Section

NUMBERS = 150_000  # in the curves of a report: about 1 MB
POINTS = 240  # of a curve at most
FIRST = ("test / top1", "validation / top1", "train / top1", "loss / total")
_LEFT_OUT = (
    *("stage", "epoch", "step", "seconds", "cpu_seconds", "evaluation_seconds", "peak_mib"),
    *("compilations", "waits"),
)


def curves_plot(section: Section, key: str, numbers: int) -> Plot | None:
    """A plot with menus for stage and quantity, of at most `numbers` numbers; its caption says what was left out."""
    runs = [run for run in section.runs if run.done]
    if not runs:
        return None
    quantities = max(1, *(len(_quantities(run.records())) for run in runs[:: max(1, len(runs) // 20)]))
    each = 2 * quantities * min(POINTS, max(run.done for run in runs))
    room = max(12, numbers // max(1, each))
    shown = _spread_out(runs, section, room)
    points = max(20, min(POINTS, numbers // (2 * quantities * len(shown))))
    views: dict[tuple[str, str], list[Series]] = {}
    for run in shown:
        group, name = _name(run, section)
        method = _method(run, section)
        for stage, records in _by_stage(run, section).items():
            for quantity in _quantities(records):
                xs, ys = _thin(records, quantity, points)
                views.setdefault((stage, quantity), []).append(Series(name, xs, ys, group=group, method=method))
    if not views:
        return None
    hide_most(views)
    order = {name: i for i, name in enumerate(FIRST)}
    stages = {stage: i for i, stage in enumerate(dict.fromkeys(stage for stage, _ in views))}
    main = max(stages, key=lambda stage: (len(views.get((stage, FIRST[0]), [])), stages[stage]))
    chosen = sorted(views, key=lambda name: (name[0] != main, stages[name[0]], order.get(name[1], 9), name[1]))
    found = [View(name, views[name], y=_unit(name[1]), paper=name[0] == main and name[1] in FIRST) for name in chosen]
    left = f"Curves of {len(shown):,} of {len(runs):,} runs; " if len(shown) < len(runs) else ""
    longest = max(run.done for run in shown)
    left += f"at most {points} points of each; " if longest > points else ""
    said = f"{left}every number is in the runs' log.jsonl." if left else ""
    caption = "Drag over the plot to zoom, double-click to see all; the legend hides and shows. " + said
    return Plot(f"{key}-curves", "Curves", caption.strip(), "epoch", "", found, menus=("Stage", "Quantity"))


def _name(run: FoundRun, section: Section) -> tuple[str, str]:
    """What the legend calls it, and the run itself."""
    training = run.arguments.get("training") or {}
    label = label_of(run, section) or run.folder.name
    pairs = {(group.teacher.split(" ")[0], group.student) for group in section.groups if group.kind != "teachers"}
    pair = f"{run.folder.parent.name}, " if len(pairs) > 1 and not section.is_teacher(run) else ""
    return f"{pair}{label}", f"{pair}{label}, seed {training.get('seed', 0)}"


def _method(run: FoundRun, section: Section) -> str:
    """What its colour stands for on the whole page."""
    return section.methods.get(run.folder) or label_of(run, section) or run.folder.name


def _spread_out(runs: Sequence[FoundRun], section: Section, room: int) -> list[FoundRun]:
    """Runs to show where there is no room for all: first one of each row of the table, then further seeds."""
    if len(runs) <= room:
        return list(runs)
    turns: dict[tuple[str, str], int] = {}
    ordered = []
    for place, run in enumerate(runs):
        row = (run.folder.parent.name, section.labels.get(run.folder, run.folder.name))
        turns[row] = turns.get(row, -1) + 1
        ordered.append((turns[row], place, run))
    first = sorted(ordered, key=lambda one: one[:2])
    rows = [run for turn, _, run in first if turn == 0]
    if len(rows) > room:  # evenly over the rows
        return [rows[i * len(rows) // room] for i in range(room)]
    return [run for _, _, run in first[:room]]


def _by_stage(run: FoundRun, section: Section) -> dict[str, list[Values]]:
    """Its log by stage; the last stage of all students has one name, also of one that is trained alone."""
    planned = run.config.get("stages") or [{}]
    teaches = section.is_teacher(run)
    own = {planned[-1].get("name"): "teacher" if teaches else "student" if run.folder in section.labels else ""}
    stages: dict[str, list[Values]] = {}
    for record in run.records():
        stage = str(record["stage"])
        stages.setdefault(own.get(stage) or stage, []).append(record)
    return stages


def _quantities(records: Sequence[Values]) -> list[str]:
    """Names of all numbers that the first and the last record hold, as GROUP / NAME."""
    names: dict[str, None] = {}
    for record in (records[0], records[-1]):
        for name, value in record.items():
            if isinstance(value, dict):
                names |= {f"{name} / {inner}": None for inner, number in value.items() if _is_number(number)}
            elif name not in _LEFT_OUT and _is_number(value):
                names[name] = None
    return list(names)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _thin(records: Sequence[Values], quantity: str, points: int) -> tuple[list[Number], list[Number]]:
    """Epochs and values, evenly thinned out; the first and the last stay."""
    group, _, name = quantity.partition(" / ")
    factor = 100.0 if name.startswith("top") else 1.0
    xs, ys = list[Number](), list[Number]()
    for record in records:
        inner = record.get(group)
        value = (inner.get(name) if isinstance(inner, dict) else None) if name else inner
        if value is not None and _is_number(value):
            xs.append(float(record["epoch"]))
            ys.append(factor * float(value))
    if len(xs) > points:
        keep = sorted({i * (len(xs) - 1) // (points - 1) for i in range(points)})
        xs, ys = [xs[i] for i in keep], [ys[i] for i in keep]
    return xs, ys


def hide_most(views: dict[tuple[str, str], list[Series]]) -> None:
    """Where there are many curves, the student alone, KD and the best begin visible."""
    for (stage, _), series in views.items():
        groups = {one.group for one in series}
        if len(groups) > 8:
            measured = views.get((stage, FIRST[0]), series)  # a loss does not say who is best
            best = {one.group for one in sorted(measured, key=lambda one: -((one.y or [0.0])[-1] or 0.0))[:3]}
            plain = {group for group in groups if {ALONE_LABEL, KD_LABEL} & set(group.split(", "))}
            for one in series:
                one.faint = one.group not in best | set(sorted(plain)[:6])


def _unit(quantity: str) -> str:
    split, _, name = quantity.partition(" / ")
    if name.startswith("top"):
        return f"{split} top-{name[3:]} %"
    return {"loss": f"loss, {name}", "lr": "learning rate", "images_per_s": "images/s"}.get(split, quantity)
