"""A folder with one folder of image files for each class; train, val and test beside each other, or split by us."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sskd.data.encoded import Encoded, Split, settle
from sskd.data.source import Source
from sskd.errors import UserError
from sskd.reading import Reading

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TRAIN = ("train", "training")
VALIDATION = ("val", "valid", "validation", "dev")
TEST = ("test", "testing", "eval")


@dataclass(frozen=True)
class Files:
    """Image files: a `Reader`."""

    paths: Sequence[str]

    def read(self, i: int) -> bytes:
        """The file's content."""
        return Path(self.paths[i]).read_bytes()

    def name(self, i: int) -> str:
        """The path."""
        return self.paths[i]

    def identity(self, i: int) -> str:
        """Path and length."""
        return f"{self.paths[i]} {os.stat(self.paths[i]).st_size}"  # noqa: PTH116  # a million times, so without a Path


def load(path: str | None, reading: Reading) -> Source:
    """Read a folder of class folders, or of train, val and test folders of them.

    With train and val alone, val is the test split. Without a test split one is cut off, seeded and stratified.
    Class names are those of the training folders, sorted. Raises `UserError` that names the folder.
    """
    if path is None:
        raise UserError("The data set family folder needs a place: say folder:PATH.")
    root = Path(path).expanduser()
    if not root.is_dir():
        wrong = "is a file" if root.exists() else "does not exist"
        raise UserError(f"{root} {wrong}; expected a folder of class folders, or of train and test folders of them.")
    train = _find(root, TRAIN, reading.train)
    if train is None:
        _refuse_flat(root)
        names, split = _split(root, _classes(root))
        return settle(Encoded(root.resolve().name, names, split, None), reading)
    validation, test = _find(root, VALIDATION, None), _find(root, TEST, reading.test)
    if test is None:
        validation, test = None, validation
    names, split = _split(train, _classes(train))
    tests, validations = (None if place is None else _split(place, names)[1] for place in (test, validation))
    places = ", ".join(f"{kind} {place.name}" for kind, place in (("test", test), ("validation", validation)) if place)
    note = f"{root.name}: training images in {train.name}" + (f", {places}." if places else ".")
    return settle(Encoded(root.resolve().name, names, split, tests, validations, (note,)), reading)


def _find(root: Path, names: Sequence[str], asked: str | None) -> Path | None:
    if asked is not None and not (root / asked).is_dir():
        there = ", ".join(sorted(place.name for place in root.iterdir() if place.is_dir()))
        raise UserError(f"{root} has no folder {asked!r}, only {there or 'files'}. Name one of these.")
    found = [root / name for name in ((asked,) if asked else names) if (root / name).is_dir()]
    return found[0] if found else None


def _refuse_flat(root: Path) -> None:
    """A folder of images without class folders has no labels."""
    if not any(place.is_dir() for place in root.iterdir()):
        raise UserError(
            f"{root} holds no folders; expected a folder of images for each class, or train and test folders of them. "
            "Without labels nothing can be learnt here."
        )


def _classes(place: Path) -> tuple[str, ...]:
    return tuple(sorted(folder.name for folder in place.iterdir() if folder.is_dir() and not _hidden(folder)))


def _hidden(place: Path) -> bool:
    return place.name.startswith((".", "__"))


def _split(place: Path, names: Sequence[str]) -> tuple[tuple[str, ...], Split]:
    """The class names and the image files in their folders, class by class, each in order of their names."""
    if strange := sorted(set(_classes(place)) - set(names)):
        raise UserError(
            f"{place} has the class folders {', '.join(strange[:5])}, which the training images do not have. "
            "Name the classes alike in all splits."
        )
    paths, labels, empty = list[str](), list[int](), list[str]()
    for label, name in enumerate(names):
        folder = place / name
        files = sorted(
            str(file)
            for file in (folder.rglob("*") if folder.is_dir() else ())
            if file.suffix.lower() in IMAGES and not _hidden(file)
        )
        empty += [] if files else [name]
        paths += files
        labels += [label] * len(files)
    if not paths:
        raise UserError(
            f"There are no images in the class folders of {place} ({', '.join(names[:5]) or 'none'}); looked for files "
            f"ending in {', '.join(IMAGES)}."
        )
    return tuple(names), Split(Files(paths), torch.tensor(labels))
