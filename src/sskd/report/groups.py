"""Tables of a report: rows that may be compared, and what they share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sskd.bench.labels import Labels
from sskd.report.found import Values


@dataclass(frozen=True)
class Group:
    """A table. Rows of `methods` were trained alike and are ranked; others only stand beside each other.

    `apart`: students of one pair, each trained under conditions that no other was. `teachers`: networks that teach, or
    were tried out for it.
    """

    teacher: str
    student: str
    labels: Labels  # what the students see
    rows: Sequence[Values]
    conditions: str = ""  # where tables of the same pair differ, short
    details: str = ""  # the same in full
    kind: Literal["methods", "apart", "teachers"] = "methods"

    @property
    def title(self) -> str:
        """Teacher -> student, what students see where that is not all, and the conditions where there are several."""
        if self.kind == "teachers":
            return "Teachers"
        pair = f"{self.teacher} → {self.student}" if self.teacher else self.student
        apart = "each under conditions of its own, not ranked" if self.kind == "apart" else ""
        return ", ".join(part for part in (pair, self.labels.said, self.conditions, apart) if part)

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


_NEEDED = ("teacher", "student", "fraction", "label", "method", "n", "of", "last_mean", "last_deviation", "published")


def whole(rows: Sequence[Any]) -> list[Values]:
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


def grouped(rows: Sequence[Values]) -> list[Group]:
    """The rows of a bench's table by pair and by what students see: all else is the same in a bench."""
    groups: dict[tuple[str, str, Labels], list[Values]] = {}
    for row in rows:
        key = (
            str(row["teacher"] or ""),
            str(row["student"] or ""),
            Labels.read({k: v for k, v in row.items() if v is not None}),
        )
        groups.setdefault(key, []).append(row)
    return [Group(*key, in_order(group)) for key, group in groups.items()]


def in_order(rows: Sequence[Values]) -> list[Values]:
    """The teacher, then the best first, then what has no result."""
    return sorted(rows, key=_order)


def _order(row: Values) -> tuple[bool, bool, float]:
    mean = row["last_mean"]
    return row["label"] != "teacher", mean is None, -(mean or 0.0)
