"""Plots as SVG and PNG files, drawn by matplotlib for white paper."""

import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from sskd.errors import UserError
from sskd.files import make_folder, write_atomic
from sskd.report.page import Page
from sskd.report.plots import Plot, Series, View, flatten_views

COLOURS = ("#2464c0", "#c4501b", "#17805a", "#8f3fb0", "#a87800", "#c2256d", "#0d7f96", "#5b626e")
MARKS, DASHES = "osD^vX", ("-", "--", ":", "-.")
STYLE: Any = {"font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none",
         "axes.grid": True, "grid.color": "#e6e3dd", "axes.axisbelow": True, "svg.hashsalt": "sskd"}  # fmt: skip
INCHES = 5.6  # wide
MANY = 10  # curves that a legend names
FITTING = 60  # letters below the x axis


def write_plots(page: Page, folder: Path, kind: str) -> dict[str, list[str]]:
    """Write the plots into a folder; names of the files by the plots' ids.

    Raises:
        UserError: matplotlib is not installed, or the folder cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UserError("--plots needs matplotlib: pip install 'sskd[report]'.") from error
    mpl.use("agg")
    make_folder(folder)
    names: dict[str, list[str]] = {}
    plots = page.plots
    with mpl.rc_context(STYLE):
        for plot, view in flatten_views(plots):
            base = re.sub(r"[^\w.]+", "-", "-".join((plot.id, *view.name))).strip("-").lower()
            write_atomic(folder / f"{base}.{kind}", _drawn(plot, view, kind))
            names.setdefault(plot.id, []).append(f"{base}.{kind}")
        for number, look in enumerate(page.looked):
            if look.cka:
                teacher = [str(name) for name in (look.similarity.get("stages") or {}).get("teacher") or []]
                write_atomic(folder / f"cka-{number}.{kind}", _heat(look.cka, teacher, kind))
    return names


def _saved(figure: Any, kind: str) -> bytes:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    figure.savefig(buffer, format=kind, dpi=200, bbox_inches="tight", metadata=metadata)
    plt.close(figure)
    return buffer.getvalue()


def _drawn(plot: Plot, view: View, kind: Literal["svg", "png"] | str) -> bytes:
    import matplotlib.pyplot as plt

    rows = len(view.series[0].y) if plot.kind == "dots" else 0
    height = 0.9 + 0.23 * rows if rows else INCHES if plot.square else 3.4
    figure, axes = plt.subplots(figsize=(INCHES, height))
    shown = [one for one in view.series if not one.faint] or view.series
    groups = list(dict.fromkeys(one.group or one.label for one in shown))
    turns = dict.fromkeys(groups, -1)
    alike: dict[int, list[str]] = {}  # a method's colour under other conditions: another mark and dash
    for one in shown:
        group = one.group or one.label
        turns[group] += 1
        number = groups.index(group) if one.colour is None else one.colour
        same = alike.setdefault(number, [])
        same += [] if group in same else [group]
        _series(axes, plot, one, number, turns[group], same.index(group))
    for name, value in view.levels.items():
        line = axes.axvline if plot.kind == "dots" else axes.axhline
        line(value, color="#5c6675", linestyle="--", linewidth=1, label=name)
    if plot.kind == "dots":
        axes.set_yticks([float(y or 0) for y in view.series[0].y], view.series[0].names)
        axes.set_ylim(0.3, rows + 0.7)
    if plot.log:
        axes.set_xscale("log")
    if view.ticks:
        long = sum(len(text) for _, text in view.ticks) > FITTING
        angled: Any = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if long else {}
        axes.set_xticks([place for place, _ in view.ticks], [text for _, text in view.ticks], **angled)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(view.y or plot.y)
    named = plot.kind == "points" and not plot.square
    if named:
        _names(axes, shown)
    if (len(groups) > 1 or view.levels) and len(groups) <= MANY * (2 if plot.square else 1) and not named:
        axes.legend(frameon=False, fontsize=8)
    elif named and view.levels:
        axes.legend(handles=axes.get_lines()[-len(view.levels):], frameon=False, fontsize=8)  # fmt: skip
    if len(plot.views) > 1 or plot.menus:
        axes.set_title(", ".join(view.name), fontsize=9, loc="left")
    return _saved(figure, kind)


def _series(axes: Any, plot: Plot, one: Series, number: int, turn: int, variant: int) -> None:
    """Seeds of a method share its colour; `turn` counts them, `variant` the conditions it was trained under."""
    colour, mark = COLOURS[number % 8], MARKS[(number + variant) % 6]
    points = [i for i, (x, y) in enumerate(zip(one.x, one.y, strict=True)) if x is not None and y is not None]
    xs, ys = [one.x[i] for i in points], [one.y[i] for i in points]
    ends = [i for i in points if one.low and one.high and one.low[i] is not None]
    if plot.kind == "bars":
        width = (xs[1] - xs[0]) * 0.92 if len(xs) > 1 else 0.8  # type: ignore[operator]
        axes.bar(xs, ys, width, color=colour)
        return
    for a, b in pairwise(points) if one.join else ():
        if a in ends and b in ends:
            axes.fill_between([one.x[a], one.x[b]], [one.low[a], one.low[b]], [one.high[a], one.high[b]],  # type: ignore[index]
                              color=colour, alpha=0.15, linewidth=0)  # fmt: skip
    if one.colours:
        axes.scatter(xs, ys, color=[COLOURS[one.colours[i] % 8] for i in points], marker=mark, s=20, zorder=3,
                     label=one.group or one.label)  # fmt: skip
    for i in ends:
        pair = [one.low[i], one.high[i]]  # type: ignore[index]
        own = COLOURS[one.colours[i] % 8] if one.colours else colour
        axes.plot(
            *((pair, [one.y[i]] * 2) if plot.kind == "dots" else ([one.x[i]] * 2, pair)), color=own, linewidth=1.2
        )
    if one.colours:
        return
    style = DASHES[(number // 8 + variant + turn) % 4] if one.join else ""
    label = "_nolegend_" if turn else one.group or one.label
    marker = mark if len(xs) <= 40 or not one.join else ""
    axes.plot(
        xs, ys, linestyle=style or "none", marker=marker, markersize=4.5, color=colour, linewidth=1.5, label=label
    )


def _names(axes: Any, series: list[Series]) -> None:
    """Labels beside the points, each where it covers the fewest others."""
    axes.margins(0.08, 0.1)
    axes.figure.canvas.draw()
    boxes: list[tuple[float, float, float, float]] = []
    places = ((6, -3), (-6, -3), (0, 7), (0, -13), (6, 6), (-6, 6), (6, -12), (-6, -12), (0, 16), (0, -22))
    for one in series:
        if one.x[0] is None or one.y[0] is None:
            continue
        px, py = axes.transData.transform((one.x[0], one.y[0]))
        size, scale = 4.4 * len(one.label), axes.figure.dpi / 72
        tries: list[Any] = []
        for dx, dy in places:
            left = dx if dx > 0 else dx - size if dx < 0 else -size / 2
            box = (px + left * scale, py + dy * scale, px + (left + size) * scale, py + (dy + 8) * scale)
            hits = sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes)
            tries.append((hits, len(tries), box, dx, dy))
        _, _, box, dx, dy = min(tries, key=lambda one: one[:2])
        boxes.append(box)
        side = "left" if dx > 0 else "right" if dx < 0 else "center"
        axes.annotate(one.label, (one.x[0], one.y[0]), (dx, dy), textcoords="offset points", ha=side, fontsize=7.5)


def _heat(rows: Any, columns: list[str], kind: str) -> bytes:
    import matplotlib.pyplot as plt

    values = [[float("nan") if value is None else value for value in row] for _, row in rows]
    figure, axes = plt.subplots(figsize=(1.6 + 0.6 * len(columns), 1.2 + 0.5 * len(values)))
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(False)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(values)), [name for name, _ in rows])
    axes.set_xlabel("teacher")
    axes.set_ylabel("student")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            axes.text(
                j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if value > 0.6 else "black"
            )
    return _saved(figure, kind)
