"""Which folders of a data set are its splits, and which are its classes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sskd.data.image_files import direct_images, has_images, shortened, subfolders
from sskd.errors import UserError
from sskd.escaping import visible
from sskd.reading import Reading

Kind = Literal["train", "validation", "test"]
WORDS: dict[Kind, tuple[str, ...]] = {
    "train": ("train", "training", "trainset"),
    "validation": ("val", "valid", "validation", "valset", "dev"),
    "test": ("test", "testing", "testset", "eval", "evaluation"),
}
KINDS = {word: kind for kind, words in WORDS.items() for word in words}
EXPECTED = "a folder of images for each class, or train and test folders of such class folders"


def split_of(name: str) -> tuple[Kind, str] | None:
    """Which split a name says, in any case, and the rest of the name, which the other splits share.

    Example:
        >>> split_of("Training"), split_of("seg_test"), split_of("boat")
        (('train', '*'), ('test', 'seg_*'), None)
    """
    parts = re.split(r"([-_. ]+|\d+)", name.lower())
    said = [i for i, part in enumerate(parts) if part in KINDS]
    if len(said) != 1:
        return None
    kind = KINDS[parts[said[0]]]
    parts[said[0]] = "*"
    return kind, "".join(parts)


@dataclass(frozen=True)
class Layout:
    """Folders of class folders."""

    train: Path
    validation: Path | None = None
    test: Path | None = None
    left_out: tuple[Path, ...] = ()  # folders with images that belong to none of these
    notes: tuple[str, ...] = ()


def find_layout(root: Path, reading: Reading) -> Layout:
    """The splits that `reading` names; else those that the folders' names say, where their content agrees.

    Raises:
        UserError: no such folder; no class folders; two ways to read the folders, with an option for each.
    """
    root = _innermost(root)
    folders = subfolders(root)
    if not folders:
        raise UserError(_flat(root))
    if reading.train is None and reading.test is None:
        return _guessed(root, folders)
    test = _asked(root, reading.test) if reading.test else None
    if reading.train:
        train = _asked(root, reading.train)
    else:
        named = [folder for folder in folders if split_of(folder.name) == ("train", "*") and folder != test]
        if len(named) > 1:
            raise UserError(f"{_names(named)} of {_said(root)} are all called training. Name one: --reading.train.")
        train = named[0] if named else root
    partners = () if train == root else _partners(train, folders)
    validation = _one_of([one for one in partners if _kind(one) == "validation" and one not in (train, test)])
    if test is None:
        test = _one_of([one for one in partners if _kind(one) == "test"])
    if test is None:
        validation, test = None, validation
    taken = (train, validation, test)
    left_out = tuple(folder for folder in folders if train != root and folder not in taken and has_images(folder))
    return _innermost_splits(Layout(train, validation, test, left_out))


def _guessed(root: Path, folders: Sequence[Path]) -> Layout:
    """By name and content. A split holds class folders; a folder that holds images alone can only be a class."""
    named = {folder: _class_names(folder) for folder in folders if split_of(folder.name)}
    trains = [folder for folder, classes in named.items() if _kind(folder) == "train" and classes]
    families = {folder: _partners(folder, folders) for folder in trains}
    # Splits are alike: the others have the training images' class folders, or some of them.
    matched = {
        train: any(named[one] and set(named[one]) <= set(named[train]) for one in partners)
        for train, partners in families.items()
    }
    likely = [folder for folder in trains if matched[folder] or split_of(folder.name) == ("train", "*")]
    if len(likely) > 1:
        raise UserError(
            f"{_names(likely)} of {_said(root)} may each be the training images. Name one with --reading.train NAME, "
            "and the test images with --reading.test NAME."
        )
    if not likely:
        return _without_training_folder(root, folders, named)
    train = likely[0]
    others = [f for f in folders if f != train and f not in families[train] and has_images(f)]
    if others and not matched[train]:
        raise UserError(
            f"{_said(root)} can be read in two ways: {train.name} is the training split and {_names(others)} no part "
            f"of the data, or {_names([train, *others])} are the classes. Say --reading.train {train.name} for the "
            "first, --reading.train . for the second."
        )
    usable = [one for one in families[train] if named[one]]
    notes = tuple(
        f"{one.name} of {_said(root)} has no class folders, so it is left out."
        for one in families[train]
        if one not in usable
    )
    test = _one_of([one for one in usable if _kind(one) == "test"])
    validation = _one_of([one for one in usable if _kind(one) == "validation"])
    if test is None:
        validation, test = None, validation
    return _innermost_splits(Layout(train, validation, test, tuple(others), notes))


def _without_training_folder(root: Path, folders: Sequence[Path], named: Mapping[Path, Sequence[str]]) -> Layout:
    """Class folders in the root itself, among which some may be called like splits."""
    plain = [folder for folder in folders if folder not in named and has_images(folder)]
    nested = [folder for folder, inner in named.items() if split_of(folder.name) in _PLAIN and inner]
    classes = {folder.name for folder in plain}
    if tests := [folder for folder in nested if plain and set(named[folder]) <= classes]:
        test = tests[0].name
        raise UserError(
            f"{_said(root)} can be read in two ways: {test} is a test split of the classes {_names(plain)}, or it is a "
            f"class beside them. Say --reading.train . --reading.test {test} for the first, --reading.train . for the "
            "second."
        )
    if nested and not plain:
        raise UserError(
            f"{_said(root)} has the folders {_names(nested)}, but no training folder; expected {EXPECTED}. Name the "
            "training folder with --reading.train NAME; --reading.train . takes all these folders as classes."
        )
    as_classes = [folder for folder in named if has_images(folder)]
    if as_classes and not plain and all(split_of(folder.name) in _PLAIN for folder in as_classes):
        raise UserError(
            f"{_names(as_classes)} of {_said(root)} hold images, but no class folders; expected {EXPECTED}. If they "
            "are the classes, say --reading.train . (the folder itself)."
        )
    filled = [*plain, *as_classes]
    if inside := _splits_inside(filled):
        raise UserError(
            f"{_said(root)} can be read in two ways: {_names(filled)} are the classes, and the images in their folders "
            f"{shortened(inside)} belong together; or {shortened(inside)} are splits. For the first, say "
            "--reading.train . (the images are mixed and split anew). For the second, move or link the images into "
            f"{visible(root.name) or 'FOLDER'}/SPLIT/CLASS, or name the folder that holds SPLIT/CLASS with --data."
        )
    plainly = [folder for folder in as_classes if split_of(folder.name) in _PLAIN]
    note = (
        f"{_names(plainly)} of {_said(root)}: taken as {'classes' if len(plainly) > 1 else 'a class'}, not as a split."
    )
    return Layout(root, notes=(note,) if plainly else ())


def _splits_inside(folders: Sequence[Path]) -> list[str]:
    """The names of the folders in these, where all are named as splits and there are no images beside them."""
    names = set[str]()
    for folder in folders:
        inner = [one.name for one in subfolders(folder) if has_images(one)]
        if not inner or not all(map(split_of, inner)) or direct_images(folder):
            return []
        names.update(map(visible, inner))
    return sorted(names)


_PLAIN = (("train", "*"), ("validation", "*"), ("test", "*"))


def _kind(folder: Path) -> Kind | None:
    said = split_of(folder.name)
    return said[0] if said else None


def _partners(train: Path, folders: Sequence[Path]) -> list[Path]:
    """Folders that are named as the other splits beside this training folder."""
    rest = (split_of(train.name) or ("train", "*"))[1]
    kinds: tuple[Kind, Kind] = ("validation", "test")
    return [one for one in folders if split_of(one.name) in [(kind, rest) for kind in kinds]]


def _class_names(folder: Path) -> list[str]:
    """The class folders of a split: those that hold images; of a split without any image all, to be named as such."""
    inner = subfolders(_innermost(folder))
    filled = [one.name for one in inner if has_images(one)]
    return filled or ([] if direct_images(_innermost(folder)) else [one.name for one in inner])


def _one_of(folders: Sequence[Path]) -> Path | None:
    if len(folders) > 1:
        raise UserError(
            f"{_names(folders)} of {_said(folders[0].parent)} are several splits of one kind. Name the test images "
            "with --reading.test NAME, or move what is not to be used out of the folder."
        )
    return folders[0] if folders else None


def _asked(root: Path, name: str) -> Path:
    """The folder that the user named; a point for the data set's folder itself."""
    if not (root / name).is_dir():
        there = ", ".join(visible(place.name) for place in subfolders(root))
        raise UserError(
            f"{_said(root)} has no folder {name!r}, only {there or 'files'}. Name one of these, or . for the folder "
            "itself."
        )
    return root / name


def _innermost(folder: Path) -> Path:
    """Archives are often unpacked into a folder of their own name: seg_train/seg_train."""
    inner = subfolders(folder)
    while len(inner) == 1 and inner[0].name.lower() == folder.name.lower() and not direct_images(folder):
        folder = inner[0]
        inner = subfolders(folder)
    return folder


def _innermost_splits(layout: Layout) -> Layout:
    train, validation, test = (
        None if one is None else _innermost(one) for one in (layout.train, layout.validation, layout.test)
    )
    assert train is not None
    return Layout(train, validation, test, layout.left_out, layout.notes)


def _flat(root: Path) -> str:
    if images := direct_images(root):
        return (
            f"{_said(root)} holds {len(images):,} images but no folders, so nothing says which class they belong to; "
            f"expected {EXPECTED}: {root.name or 'FOLDER'}/CLASS/{visible(images[0].name)}."
        )
    return f"{_said(root)} holds no folders; expected {EXPECTED}."


def _names(folders: Sequence[Path]) -> str:
    return shortened([visible(folder.name) for folder in folders])


def _said(root: Path) -> str:
    return visible(str(root))
