"""A folder with one folder of image files for each class; train, val and test beside each other, or split by us."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sskd.data.encoded import Encoded, Split, settle
from sskd.data.image_files import IMAGE_EXTENSIONS, Listing, direct_images, hidden_folders, shortened, subfolders
from sskd.data.labels import name_notes
from sskd.data.layout import EXPECTED, Layout, find_layout
from sskd.data.source import Source
from sskd.errors import UserError
from sskd.escaping import visible
from sskd.reading import Reading


@dataclass(frozen=True)
class Files:
    """Image files: a `Reader`."""

    paths: Sequence[str]

    @property
    def names(self) -> "Files":
        """See `Reader`."""
        return self

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
        raise UserError(f"{visible(str(root))} {wrong}; expected {EXPECTED}.")
    layout, listing = find_layout(root, reading), Listing(root)
    names = tuple(folder.name for folder in _class_folders(layout, layout.train))
    parts = {"train": layout.train, "validation": layout.validation, "test": layout.test}
    for place in dict.fromkeys([root, *filter(None, parts.values())]):
        listing.hidden += [visible(str(one.relative_to(root))) for one in hidden_folders(place)]
    splits = {kind: _split(layout, place, names, listing) for kind, place in parts.items() if place is not None}
    if len(names) == 1:
        inner = layout.train / names[0]
        raise UserError(
            f"{visible(str(layout.train))} holds one class folder, {visible(names[0])}; a classifier needs at "
            f"least 2. If the class folders lie deeper, say --data {visible(str(inner))}."
        )
    notes = (*_said(root, layout), *layout.notes, *listing.notes(), *name_notes(names, "class folders"))
    name = visible(root.resolve().name)
    encoded = Encoded(name, names, splits["train"], splits.get("test"), splits.get("validation"), notes)
    return settle(encoded, reading)


def _said(root: Path, layout: Layout) -> list[str]:
    """What was taken as what, and what was not taken."""
    places = {"test": layout.test, "validation": layout.validation}
    others = [f"{kind} {visible(place.name)}" for kind, place in places.items() if place]
    notes, name = list[str](), visible(root.name or str(root))
    if layout.train != root or others:
        train = "the folder itself" if layout.train == root else visible(layout.train.name)
        notes.append(f"{name}: training images in {train}" + (f", {', '.join(others)}." if others else "."))
    if layout.left_out:
        notes.append(f"{name}: folders left out: {shortened([visible(one.name) for one in layout.left_out])}.")
    for place in filter(None, (layout.train, layout.validation, layout.test)):
        if images := direct_images(place):
            notes.append(
                f"{visible(str(place))}: {len(images):,} images lie in no class folder and are left out, first "
                f"{visible(images[0].name)}."
            )
    return notes


def _class_folders(layout: Layout, place: Path) -> list[Path]:
    """The class folders of a split; the other splits may lie beside those of the training images."""
    splits = [one for one in (layout.validation, layout.test) if one is not None and place == layout.train]
    return [one for one in subfolders(place) if not any(split == one or one in split.parents for split in splits)]


def _split(layout: Layout, place: Path, names: Sequence[str], listing: Listing) -> Split:
    """The image files in the class folders, class by class, each in order of their paths."""
    folders = {folder.name: folder for folder in _class_folders(layout, place)}
    if strange := [visible(name) for name in folders if name not in names]:
        raise UserError(
            f"{visible(str(place))} has the class folders {shortened(strange)}, which the training images do not "
            "have. Name the classes alike in all splits."
        )
    paths, labels = list[str](), list[int]()
    for label, name in enumerate(names):
        files = listing.images(folders[name]) if name in folders else []
        paths += files
        labels += [label] * len(files)
    if not paths:
        found = shortened([f"{count:,} {visible(kind)}" for kind, count in listing.other.most_common()])
        there = f" There are other files: {found}; convert those that are images." if found else ""
        raise UserError(
            f"There are no images in the class folders of {visible(str(place))} "
            f"({shortened([visible(name) for name in names])}); looked for files ending in "
            f"{', '.join(IMAGE_EXTENSIONS)}.{there}"
        )
    return Split(Files(paths), torch.tensor(labels))
