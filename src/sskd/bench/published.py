"""What the SSKD paper's tables say, top-1 % (HSAKD's row is that paper's own); ImageNet's from its error rates.

Not conditions that a bench repeats; see `CONDITIONS`. A pair without a data set before it is of CIFAR-100.
"""

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from sskd.models.names import PUBLISHED

CONDITIONS = {
    "cifar100": "240 epochs, batch 64, 50,000 training images, best epoch on the test set, teachers of their own; "
    "KD added to every method",
    "imagenet": "about 90 epochs, batch 256, 1,281,167 training images, top-1 on the 50,000 validation images; crd is "
    "CRD + KD, and whether KD was added to at, sp and cc is not known",
}
IMAGENET = (1_281_167, 50_000)  # images for training, and those that published numbers are measured on


def data_of(data: Mapping[str, Any]) -> str:
    """The published data set that a run's data is: by name, ImageNet also by the number of its images."""
    images = data.get("teacher_images", 0) + data.get("validation_images", 0), data.get("test_images")
    return "imagenet" if images == IMAGENET else str(data.get("name", ""))


@cache
def _table() -> dict[tuple[str, str, str, str], float]:
    text = (resources.files("sskd.bench") / "published.csv").read_text()
    found: dict[tuple[str, str, str, str], float] = {}
    for row in csv.DictReader(text.splitlines()):
        for title, value in row.items():
            if title != "row" and value:
                data, _, pair = title.rpartition(":")
                teacher, student = (PUBLISHED.get(name, name) for name in pair.split(">"))
                found[data or "cifar100", teacher, student, row["row"]] = float(value)
    return found


def published(data: Mapping[str, Any], teacher: str, student: str, row: str) -> float | None:
    """Top-1 % of a pair and a row ("teacher", or a method), or None. `data` is that of a run's config."""
    return _table().get((data_of(data), teacher, student, row))
