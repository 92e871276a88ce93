"""Tables of text: their Markdown, and what stands in them everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Row = tuple[str, ...]


@dataclass(frozen=True)
class Lines:
    """A table as text."""

    title: str
    head: Row
    rows: tuple[Row, ...]


def markdown(lines: Lines) -> str:
    """As Markdown, for a terminal and for a document."""
    rule = "|".join(["---", *["---:"] * (len(lines.head) - 1)])
    text = [f"**{lines.title}**", "", *("| " + " | ".join(row) + " |" for row in (lines.head,)), f"|{rule}|"]
    return "\n".join([*text, *("| " + " | ".join(row) + " |" for row in lines.rows)])


def spread(values: Sequence[float], digits: int) -> str:
    """Median and quartiles."""
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} [{low}, {high}]"


def machine(report: dict[str, Any], *parts: str) -> str:
    """Where and with what these parts were measured; all of them where none is named."""
    device = report["settings"].get("device", "cpu")
    where = report["accelerator"] if device.startswith("cuda") else report["processor"]
    whole = (report.get("git") or {}).get("commit", "unknown")
    made = report.get("commits") or {}
    commits = ", ".join(dict.fromkeys(made.get(part, whole)[:7] for part in parts or made or ("all",)))
    threads = report["settings"].get("threads") or report["threads"]
    malloc = f"{report['allocator']}, " if report.get("allocator") else ""
    return f"{where}, {threads} thread{'' if threads == 1 else 's'}, {malloc}torch {report['torch']}, commit {commits}"
