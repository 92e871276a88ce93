"""Data sets: `load_source` finds one by name or place; a family is one file and one entry of `SOURCES`."""

import difflib
from collections.abc import Callable
from pathlib import Path

import torch

from sskd.data import digits, folder, hub, parquet, published, shards
from sskd.data.classes import only
from sskd.data.image_files import direct_images, has_images, is_hidden, shortened, subfolders
from sskd.data.in_memory import PREFIX
from sskd.data.layout import EXPECTED
from sskd.data.source import Source
from sskd.data.streams import Stream
from sskd.data.subsets import describe_classes
from sskd.errors import UserError
from sskd.escaping import visible
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
_COLUMNS = ("image", "label", "train", "test")
NAMED: dict[str, tuple[str, ...]] = {
    "folder": ("train", "test"),
    "parquet": _COLUMNS,
    "shards": _COLUMNS,
    "hub": (*_COLUMNS, "stream"),
}
"""What of `Reading` names a part of a data set, and the families that have such parts."""


def load_source(spec: str, reading: Reading = Reading()) -> Source:  # noqa: B008  # frozen
    """The data set that `spec` names: a family ("digits"), "family:PATH", or a folder, whose content tells the family.

    Raises `UserError` if there is no such data set, if it cannot be read, or if a class has no training image.
    """
    if not spec.strip():
        raise UserError("data is empty. Name a data set (`sskd list data`) or a folder.")
    family, _, path = spec.partition(":")
    if family == PREFIX:
        raise UserError(
            f"{spec} was handed over in Python and is stored nowhere. Hand it over again, or name other data."
        )
    if family in SOURCES:
        place = path or None
    else:
        family, place = _family_of(spec), spec
    for name in (*_COLUMNS, "stream"):
        if getattr(reading, name) not in (None, False) and name not in NAMED.get(family, ()):
            families = ", ".join(one for one, names in NAMED.items() if name in names)
            raise UserError(f"--reading.{name} is for {families}; {spec} is read as {family}. Leave it out.")
    return checked(SOURCES[family](place, reading), reading)


def checked(source: Source, reading: Reading) -> Source:
    """The classes that `reading` asks for.

    Raises:
        UserError: a class without training images, or one that is not there.
    """
    if reading.classes is not None:
        source = only(source, reading.classes)
    if isinstance(source.train, Stream):
        return source  # its labels are not known before they come
    counts = torch.bincount(source.train.labels, minlength=len(source.class_names))
    if (missing := counts == 0).any():
        left_out = f" What was read: {' '.join(source.notes)}" if source.notes else ""
        raise UserError(
            f"{source.name} has classes without training images: "
            f"{describe_classes(counts, source.class_names, missing)}. "
            f"Add images of them, or take them out of the class list and number the labels anew.{left_out}"
        )
    return source


def _family_of(spec: str) -> str:
    """Parquet files, tar shards, or class folders.

    Raises:
        UserError: no such folder, nothing of these in it, or several.
    """
    place = Path(spec).expanduser()
    if not place.is_dir():
        raise UserError(_no_such(spec, place))

    def files(pattern: str) -> list[str]:
        return [file.name for file in sorted(place.glob(pattern)) if file.is_file() and not is_hidden(file.name)]

    tars, tables = files("*.tar"), files("*.parquet") or files("data/*.parquet")
    folders = [one.name for one in subfolders(place) if has_images(one)] if tars or tables else []
    kinds = {"shards": tars, "parquet": tables, "folder": folders}
    there = {family: names for family, names in kinds.items() if names}
    if len(there) > 1:
        content = " and ".join(shortened([visible(name) for name in names]) for names in there.values())
        options = " or ".join(f"--data {family}:{visible(spec)}" for family in there)
        raise UserError(f"{visible(spec)} holds {content}, each of which may be the data. Say which: {options}.")
    if there:
        return next(iter(there))
    if subfolders(place) or direct_images(place):
        return "folder"
    raise UserError(
        f"{visible(spec)} holds no images, no parquet files and no tar shards; expected {EXPECTED}, or "
        "train-*.parquet or train-*.tar files, with test files beside them."
    )


def _no_such(spec: str, place: Path) -> str:
    """What is wrong with a place that is no folder, with the nearest names."""
    if place.exists():
        return f"{visible(spec)} is a file; expected a folder of class folders, of parquet files or of tar shards."
    parent = place.parent
    there = [one.name for one in subfolders(parent)] if parent.is_dir() else []
    near = [str(parent / name) for name in difflib.get_close_matches(place.name, there, cutoff=0.6)]
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    family = spec.partition(":")[0]
    if "/" in family:
        return (
            f"There is no folder {visible(spec)}; expected a folder of class folders, of parquet files or of tar "
            f"shards, or FAMILY:PATH with one of {', '.join(SOURCES)}.{hint}"
        )
    near = [*difflib.get_close_matches(family, SOURCES, n=3, cutoff=0.5), *near]
    hint = (
        f"Did you mean {' or '.join(repr(name) for name in near)}?" if near else f"Known: {', '.join(sorted(SOURCES))}."
    )
    return f"There is no data set named {family!r}, and no folder {visible(spec)} here. {hint}"
