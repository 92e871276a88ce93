"""Data sets: `load_source` finds one by name or place; a family is one file and one entry of `SOURCES`."""

from collections.abc import Callable
from pathlib import Path

import torch

from sskd.data import digits, folder, hub, parquet, published, shards
from sskd.data.classes import only
from sskd.data.source import Source
from sskd.data.streams import Stream
from sskd.data.subsets import describe_classes
from sskd.errors import UserError, unknown
from sskd.reading import Reading

SOURCES: dict[str, Callable[[str | None, Reading], Source]] = {
    "digits": digits.load,
    "cifar10": published.cifar10,
    "cifar100": published.cifar100,
    "stl10": published.stl10,
    "svhn": published.svhn,
    "imagenet": published.imagenet,
    "folder": folder.load,
    "parquet": parquet.load,
    "shards": shards.load,
    "hub": hub.load,
}


def load_source(spec: str, reading: Reading = Reading()) -> Source:  # noqa: B008  # frozen
    """The data set that `spec` names: a family ("digits"), "family:PATH", or a folder, whose content tells the family.

    Raises `UserError` if there is no such data set, if it cannot be read, or if a class has no training image.
    """
    family, _, path = spec.partition(":")
    if family in SOURCES:
        source = SOURCES[family](path or None, reading)
    elif "/" in family or Path(spec).is_dir():
        if not Path(spec).expanduser().is_dir():
            raise UserError(
                f"There is no folder {spec}; expected a folder of class folders, of parquet files or of tar shards, or "
                f"FAMILY:PATH with one of {', '.join(SOURCES)}."
            )
        source = SOURCES[_family_of(Path(spec).expanduser())](spec, reading)
    else:
        raise unknown("data set", family, SOURCES)
    if reading.classes is not None:
        source = only(source, reading.classes)
    if isinstance(source.train, Stream):
        return source  # its labels are not known before they come
    counts = torch.bincount(source.train.labels, minlength=len(source.class_names))
    if (missing := counts == 0).any():
        raise UserError(
            f"{source.name} has classes without training images: "
            f"{describe_classes(counts, source.class_names, missing)}. "
            "Add images of them, or take them out of the class list and number the labels anew."
        )
    return source


def _family_of(place: Path) -> str:
    """Parquet files, tar shards, or class folders."""
    if any(place.glob("*.tar")):
        return "shards"
    if any(place.glob("*.parquet")) or any(place.glob("data/*.parquet")) or not any(_folders(place)):
        return "parquet"
    return "folder"


def _folders(place: Path) -> list[Path]:
    return [inner for inner in place.iterdir() if inner.is_dir()] if place.is_dir() else []
