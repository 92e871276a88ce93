"""How values are written in the page."""

from collections.abc import Callable, Mapping
from typing import Any

from sskd.report.found import Values
from sskd.report.groups import Group
from sskd.report.plots import students


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def points(value: Any) -> str:
    """Two digits; empty for None."""
    return f"{value:.2f}" if _number(value) else ""


def whole(value: Any) -> str:
    """No digits after the point."""
    return f"{value:,.0f}" if _number(value) else ""


def signed(value: Any) -> str:
    """A difference, with a true minus."""
    return f"{value:+.2f}".replace("-", "−") if _number(value) else ""


def share(value: Any) -> str:
    """A share as per cent, without the sign."""
    return f"{100 * value:.2f}" if _number(value) else ""


def percent(value: Any) -> str:
    """A share as per cent."""
    return f"{100 * value:.1f} %" if _number(value) else "?"


def added(weight: Any) -> str:
    """The weight of KD beside a method's own terms."""
    return "" if not _number(weight) else f"× {weight:g}" if weight else "no"


def spread(row: Values, kind: str) -> str:
    """Mean ± deviation."""
    mean, deviation = row.get(f"{kind}_mean"), row.get(f"{kind}_deviation")
    return points(mean) + (f" ± {deviation:.2f}" if _number(mean) and _number(deviation) else "")


def stages(values: Any) -> str:
    """Seconds of each stage."""
    return ", ".join(f"{name} {seconds:,.0f}" for name, seconds in (values or {}).items())


def shown_columns(group: Group) -> dict[str, Any]:
    """Which columns hold anything, which row is best, and the range of the bars."""
    rows, done = group.rows, students(group)
    columns = {"kd": "kd_weight", "vs_kd": "vs_kd", "vs_best": "vs_best", "published": "published",
               "cost": "cpu_seconds", "stages": "stage_seconds", "peak": "peak_mib"}  # fmt: skip
    found: dict[str, Any] = {name: any(row.get(key) not in (None, {}) for row in rows) for name, key in columns.items()}
    found["best"] = any(_number(row.get("best_mean")) for row in rows)
    values = [row["last_mean"] for row in rows if _number(row["last_mean"])]
    found["low"] = max(0.0, min(values) - (max(values) - min(values)) / 2) if values else 0.0
    found["high"] = max(values, default=1.0)
    found["first"] = done[0] if len(done) > 1 and group.kind == "methods" else None
    return found


def part(value: Any, shown: Mapping[str, Any]) -> str:
    """How much of a cell its bar fills, in per cent."""
    width = shown["high"] - shown["low"]
    return f"{100 * (value - shown['low']) / width:.0f}" if _number(value) and width > 0 else "0"


def heat_part(value: Any) -> str:
    """A similarity as a shade."""
    return f"{100 * min(1.0, max(0.0, value)):.0f}" if _number(value) else "0"


def shade(value: Any, matrix: Mapping[str, Any]) -> str:
    """A value of a matrix as a shade between its lowest and highest."""
    width = matrix["high"] - matrix["low"]
    return f"{100 * (value - matrix['low']) / width:.0f}" if _number(value) and width > 0 else "0"


FILTERS: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (points, whole, signed, share, percent, added, spread, stages, shown_columns, part, heat_part, shade)
} | {"count_of": whole}
