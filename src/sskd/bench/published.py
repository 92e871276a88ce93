"""What the SSKD paper's tables say (top-1 % on CIFAR-100; HSAKD's row is that paper's own).

Best epoch on the test set, five runs or fewer, teachers of their own: not conditions that a bench repeats.
"""

import csv
from functools import cache
from importlib import resources

from sskd.models.zoo import PUBLISHED

CONDITIONS = "240 epochs, batch 64, 50,000 training images, best epoch on the test set, teachers of their own"


@cache
def _table() -> dict[tuple[str, str, str], float]:
    text = (resources.files("sskd.bench") / "published.csv").read_text()
    found: dict[tuple[str, str, str], float] = {}
    for row in csv.DictReader(text.splitlines()):
        for pair, value in row.items():
            if pair != "row" and value:
                teacher, student = (PUBLISHED[name] for name in pair.split(">"))
                found[teacher, student, row["row"]] = float(value)
    return found


def published(data: str, teacher: str, student: str, row: str) -> float | None:
    """Top-1 % of a pair and a row ("teacher", or a method), or None; of CIFAR-100 alone."""
    return _table().get((teacher, student, row)) if data == "cifar100" else None
