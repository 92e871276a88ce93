"""What was looked at after a run (`RUN/analyses/*.json`), made ready for the page."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from sskd.report.found import Found, FoundRun, Values
from sskd.report.plots import Number, Plot, Series, View

SHOWN = 24  # images of the gallery, for each run
POINTS = 1200  # of an embedding


@dataclass
class Budget:
    """Bytes that thumbnails may still take; what did not fit is counted."""

    left: int
    left_out: int = 0

    def inlined(self, path: Path) -> str:
        """An image as a data URI; empty where there is none or no room."""
        kind = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}.get(path.suffix.lower())
        try:
            size = path.stat().st_size if kind else 0
            if not size or size * 4 // 3 > self.left:
                self.left_out += bool(size)
                return ""
            text = base64.b64encode(path.read_bytes()).decode()
        except OSError:
            return ""
        self.left -= len(text)
        return f"data:image/{kind};base64,{text}"


@dataclass
class Looked:
    """The analyses of one run."""

    run: FoundRun
    name: str
    similarity: Values = field(default_factory=dict)
    inspect: Values = field(default_factory=dict)
    probes: Mapping[str, Values] = field(default_factory=dict)  # by the data
    cka: Sequence[tuple[str, Sequence[Number]]] = ()
    matrices: Sequence[dict[str, Any]] = ()
    gallery: Sequence[dict[str, Any]] = ()
    plots: list[Plot] = field(default_factory=list)
    classes: Sequence[dict[str, Any]] = ()


def looked_at(found: Found, budget: Budget) -> list[Looked]:
    """The runs that have analyses; their thumbnails as far as there is room. What cannot be shown is a problem."""
    looked = list[Looked]()
    for run in found.runs:
        try:
            looked += [_look(run, len(looked), budget)] if run.analyses else []
        except (KeyError, TypeError, AttributeError, ValueError):
            found.problems.append(f"{run.folder}/analyses holds values that no analysis writes; they are left out.")
    return looked


def _look(run: FoundRun, number: int, budget: Budget) -> Looked:
    kinds = {str(values.get("kind")): values for values in run.analyses.values()}
    similarity, inspect = kinds.get("similarity", {}), kinds.get("inspect", {})
    found = Looked(run, _name(run), similarity, inspect)
    found.probes = {str(one.get("data")): one for one in run.analyses.values() if one.get("kind") == "probe"}
    names, rows = (similarity.get("stages") or {}).get("student") or [], similarity.get("cka") or []
    found.cka = [(str(name), list(row)) for name, row in zip(names, rows, strict=False)]
    folder = run.folder / "analyses"
    found.matrices = _matrices(similarity.get("ss") or {}, folder, budget)
    found.gallery = [_pair(one, folder, budget) for one in (inspect.get("noisy") or [])[:SHOWN]]
    found.classes = _classes(inspect)
    made = (_calibration(inspect, number), *_levels(inspect, number), _embedding(inspect, number))
    found.plots = [plot for plot in made if plot]
    return found


def _name(run: FoundRun) -> str:
    """Its folder is said where it says more than method and seed."""
    seed = (run.arguments.get("training") or {}).get("seed", 0)
    if run.is_teacher:
        return f"teacher {run.arguments.get('network', '')}, seed {seed}"
    method = run.arguments.get("method") or "?"
    return f"{method}, seed {seed}" + ("" if run.folder.name == f"{method}-seed{seed}" else f": {run.folder.name}")


def _matrices(ss: Values, folder: Path, budget: Budget) -> list[dict[str, Any]]:
    """Self-supervision similarities side by side; shades are between the lowest and the highest of both."""
    sides = {side: ss[side] for side in ("teacher", "student") if ss.get(side)}
    values = [value for rows in sides.values() for row in rows for value in row if value is not None]
    if not values:
        return []
    low, high = min(values), max(values)
    classes, thumbnails = ss.get("classes") or [], ss.get("thumbnails") or []
    images = [budget.inlined(_inside(folder, name)) for name in thumbnails]
    return [{"side": side, "rows": rows, "low": low, "high": high, "classes": classes, "images": images}
            for side, rows in sides.items()]  # fmt: skip


def _inside(folder: Path, name: Any) -> Path:
    """A file below the folder; a name that leads elsewhere leads nowhere."""
    path = (folder / str(name)).resolve()
    return path if path.is_relative_to(folder.resolve()) else Path()


def _pair(one: Values, folder: Path, budget: Budget) -> dict[str, Any]:
    images = {key: budget.inlined(_inside(folder, one.get(key, ""))) for key in ("image", "taken_for")}
    keys = ("image_class", "taken_for_class", "view", "rank", "kept")
    return {**images, **{key: one.get(key) for key in keys}}


def _classes(inspect: Values) -> list[dict[str, Any]]:
    teacher = {one.get("class"): one.get("top1") for one in inspect.get("teacher_per_class") or []}
    return [{**one, "teacher": teacher.get(one.get("class"))} for one in inspect.get("per_class") or []]


def _calibration(inspect: Values, number: int) -> Plot | None:
    series = [Series("perfect", [0.0, 1.0], [0.0, 1.0])]
    said = []
    for key, side in (("calibration", "student"), ("teacher_calibration", "teacher")):
        bins = [one for one in (inspect.get(key) or {}).get("bins") or [] if one.get("count")]
        if bins:
            counts = [f"{one['count']:,} images" for one in bins]
            series.append(
                Series(side, [one["confidence"] for one in bins], [one["accuracy"] for one in bins], names=counts)
            )
            said.append(f"{side} {inspect[key].get('ece', 0):.3f}")
    if len(series) == 1:
        return None
    caption = f"Expected calibration error: {', '.join(said)}. Below the diagonal a network is surer than it is right."
    return Plot(
        f"calibration-{number}", "Calibration", caption, "confidence", "accuracy", [View((), series)], square=True
    )


def _levels(inspect: Values, number: int) -> list[Plot]:
    names = {"ss": "self-supervised predictions", "tf": "predictions on transformed images",
             "plain": "predictions on plain images"}  # fmt: skip
    views = []
    for key, one in (inspect.get("error_levels") or {}).items():
        one = one or {}  # a method without a head has no error levels of one
        edges, counts = one.get("edges") or [], one.get("counts") or []
        if counts and len(edges) == len(counts) + 1:
            bars = Series("predictions", [float(i) for i in range(len(counts))], [float(n) for n in counts])
            ticks = [(float(i), f"{low}" if high - low == 1 else f"{low}–{high - 1}")
                     for i, (low, high) in enumerate(pairwise(edges))]  # fmt: skip
            bars.names = [f"error level {text}" for _, text in ticks]
            views.append(View((names.get(key, str(key)),), [bars], ticks=ticks))
    if not views:
        return []
    caption = (
        "How many answers the teacher prefers to the right one: 0 is right. Where a term is selective, it keeps those "
    )
    caption += "and the nearest of the others."
    title, label = "Error levels of the teacher", "answers preferred to the right one"
    return [Plot(f"levels-{number}", title, caption, label, "predictions", views, "bars", ("Predictions",))]


def _embedding(inspect: Values, number: int) -> Plot | None:
    embedding = inspect.get("embedding") or {}
    points = (embedding.get("points") or [])[:POINTS]
    sides = list(dict.fromkeys(str(point.get("side", "student")) for point in points))
    views = []
    for side in sides:
        classes: dict[str, list[Values]] = {}
        for point in points:
            if str(point.get("side", "student")) == side:
                classes.setdefault(str(point.get("class")), []).append(point)
        series = [Series(name, [p["x"] for p in members], [p["y"] for p in members], names=[name] * len(members),
                         join=False)
                  for name, members in classes.items()]  # fmt: skip
        views.append(View((side,), series))
    method = str(embedding.get("method", "embedding"))
    caption = f"{method}; near points look alike to the network, directions and units mean nothing."
    return (
        Plot(f"embedding-{number}", "Features", caption, "", "", views, "points", ("Network",), square=True)
        if views
        else None
    )
