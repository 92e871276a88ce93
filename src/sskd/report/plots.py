"""What plots show, as plain values: the page draws them in the browser, `paper.py` draws them for print."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sskd.bench.results import ALONE_LABEL, KD_LABEL
from sskd.report.found import Values
from sskd.report.groups import Group, units
from sskd.report.sections import Section

Number = float | None
DIGITS = 5  # significant, of the numbers in the page


@dataclass
class Series:
    """Points under a label. `low` and `high` are the ends of error bars or of a band; `faint` begins hidden."""

    label: str
    x: list[Number]
    y: list[Number]
    low: list[Number] | None = None
    high: list[Number] | None = None
    names: list[str] | None = None  # of the points
    group: str = ""  # what it shares its colour with; seeds of a method
    faint: bool = False
    join: bool = True
    method: str = ""  # whose colour it has on the whole page; without one, colours are those of the plot alone
    colour: int | None = None  # of the method
    colours: list[int] | None = None  # of the points, where each is another method

    def packed(self) -> dict[str, Any]:
        """For the page: rounded, without what is not there."""
        found = {key: value for key, value in vars(self).items() if key != "method" and not _is_empty(value)}
        return {key: [_rounded(v) for v in value] if key in ("x", "y", "low", "high") else value
                for key, value in found.items()}  # fmt: skip


@dataclass
class View:
    """What a plot shows at one choice of its menus. `levels` are horizontal lines with labels."""

    name: tuple[str, ...]
    series: list[Series]
    levels: dict[str, float] = field(default_factory=dict)
    y: str = ""  # the axis's label, where views differ in it
    ticks: Sequence[tuple[float, str]] = ()  # of the x axis, where they are not to be chosen by what fits
    paper: bool = True  # worth a file of its own


@dataclass
class Plot:
    """A figure."""

    id: str
    title: str
    caption: str
    x: str
    y: str
    views: list[View]
    kind: Literal["lines", "points", "dots", "bars"] = "lines"
    menus: tuple[str, ...] = ()
    log: bool = False  # the x axis
    square: bool = False

    def packed(self) -> dict[str, Any]:
        """For the page."""
        names = ("id", "title", "x", "y", "kind", "menus", "log", "square")
        views = [
            {
                **{key: getattr(view, key) for key in ("name", "levels", "y", "ticks")},
                "series": [one.packed() for one in view.series],
            }
            for view in self.views
        ]
        return {**{key: getattr(self, key) for key in names}, "views": views}


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value == ""


def _rounded(value: Number) -> Number:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def cost_of(row: Values) -> float | None:
    """Seconds of computing that a student took, with the stages before it."""
    own = row.get("cpu_seconds") or row.get("seconds")
    return own + sum((row.get("stage_seconds") or {}).values()) if own else None


def students(group: Group) -> list[Values]:
    """Rows with a result, without the teacher's; the best first."""
    done = [row for row in group.rows if row["label"] != "teacher" and row["last_mean"] is not None]
    return sorted(done, key=lambda row: -row["last_mean"])


def teacher_level(group: Group) -> dict[str, float]:
    """The teacher's accuracy, by its name."""
    teachers = [row for row in group.rows if row["label"] == "teacher" and row["last_mean"] is not None]
    return {f"teacher {row['teacher']}": row["last_mean"] for row in teachers}


def _spread(row: Values) -> tuple[Number, Number]:
    mean, deviation = row["last_mean"], row["last_deviation"]
    return (None, None) if deviation is None else (mean - deviation, mean + deviation)


def _ranked(section: Section) -> list[Group]:
    return [group for group in section.groups if group.kind == "methods"]


def colour(plots: Sequence[Plot]) -> None:
    """Give each method one colour in all plots: the student alone and KD the first, then the others by name."""
    series = [one for plot in plots for view in plot.views for one in view.series]
    ranked = [one for plot in plots if plot.kind == "dots" for view in plot.views for one in view.series]
    names = {one.method for one in series if one.method} | {name for one in ranked for name in one.names or ()}
    order = sorted(names, key=lambda name: (name.startswith("teacher "), name != ALONE_LABEL, name != KD_LABEL, name))
    numbers = {name: number for number, name in enumerate(order)}
    for one in series:
        one.colour = numbers.get(one.method)
    for one in ranked:
        one.colours = [numbers[name] for name in one.names or ()]


def accuracy_plot(section: Section, key: str) -> Plot | None:
    """Methods in the order of their accuracy."""
    views = []
    for group in _ranked(section):
        rows = students(group)
        if len(rows) < 2:
            continue
        ends = [_spread(row) for row in rows]
        at = [float(len(rows) - i) for i in range(len(rows))]
        labels = [str(row["label"]) for row in rows]
        series = [Series("this table", [row["last_mean"] for row in rows], list(at),
                         [low for low, _ in ends], [high for _, high in ends], labels, join=False)]  # fmt: skip
        if any(row["published"] is not None for row in rows):
            series.append(Series("published", [row["published"] for row in rows], list(at), names=labels, join=False))
        views.append(View((group.title,), series, teacher_level(group)))
    caption = "Test top-1 % in the last epoch; whiskers are one sample deviation over seeds, where there are several."
    title = "Accuracy by method"
    return Plot(f"{key}-accuracy", title, caption, "test top-1 %", "", views, "dots", ("Pair",)) if views else None


def cost_plot(section: Section, key: str) -> Plot | None:
    """Accuracy against computing."""
    views = []
    for group in _ranked(section):
        rows = [row for row in students(group) if cost_of(row)]
        if len(rows) < 2:
            continue
        series = []
        for row in rows:
            low, high = _spread(row)
            cost, label = cost_of(row), str(row["label"])
            series.append(Series(label, [cost], [row["last_mean"]], [low], [high], [label], join=False,
                                 method=label))  # fmt: skip
        views.append(View((group.title,), series, teacher_level(group)))
    costs = [one.x[0] for view in views for one in view.series if one.x[0]]
    unit = units(group.unit for group in section.groups if any(view.name == (group.title,) for view in views))
    caption = f"Up and to the left is better. {unit} of the student's training with the stages before it; a stage that "
    caption += "is trained once for all students is counted where it was trained."
    log = bool(costs) and max(costs) > 5 * min(costs)
    title = "Accuracy against cost"
    return Plot(f"{key}-cost", title, caption, unit, "test top-1 %", views, "points", ("Pair",), log) if views else None


def study_plot(study: Values, key: str) -> Plot | None:
    """What a study has varied, with a band of one deviation over seeds."""
    axis, series = study.get("x") or {}, []
    values = list(axis.get("values") or [])
    numbers = all(isinstance(value, int | float) for value in values)
    for one in study.get("series") or []:
        points = [point for point in one.get("points") or [] if point.get("mean") is not None]
        if points:
            xs, ys = [_place(point["x"], values) for point in points], [point["mean"] for point in points]
            low, high = ([_end(point, sign) for point in points] for sign in (-1, 1))
            counts = [_count(point) for point in points]
            series.append(
                Series(str(one.get("label")), xs, ys, low, high, counts, join=numbers, method=str(one.get("label")))
            )
    if not series:
        return None
    caption = "Test top-1 %, mean over seeds; bands and whiskers are one sample deviation, where there are several."
    name = str(study.get("question") or study.get("study") or "Study")
    label = str(axis.get("label") or axis.get("name") or "")
    ticks = [(place, f"{value:g}" if numbers else str(value)) for value in values
             if (place := _place(value, values)) is not None]  # fmt: skip
    return Plot(f"{key}-study", name, caption, label, "test top-1 %", [View((), series, ticks=ticks)])


def _end(point: Values, sign: int) -> Number:
    """Of a point's whisker; None where one seed has no deviation."""
    deviation = point.get("deviation")
    return None if deviation is None else float(point["mean"] + sign * deviation)


def _count(point: Values) -> str:
    n, of = point.get("n", "?"), point.get("of")
    return f"n = {n}" + (f" of {of}" if of not in (None, n) else "")


def _place(value: Any, values: Sequence[Any]) -> Number:
    if isinstance(value, int | float):
        return float(value)
    return float(values.index(value)) if value in values else None


def flatten_views(plots: Sequence[Plot]) -> list[tuple[Plot, View]]:
    """All that is worth a file."""
    return [(plot, view) for plot in plots for view in plot.views if view.paper]
