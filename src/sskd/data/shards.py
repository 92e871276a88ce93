"""Tar shards as WebDataset writes them: KEY.jpg beside KEY.cls or KEY.json, in train-*.tar and test-*.tar."""

import json
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import torch

from sskd.data.encoded import Encoded, Split, settle
from sskd.data.image_files import is_hidden, shortened
from sskd.data.known import known
from sskd.data.labels import name_notes, names_of, refuse_distinct
from sskd.data.layout import Kind, split_of
from sskd.data.source import Source
from sskd.data.tar_contents import Contents, option, read_contents
from sskd.errors import UserError
from sskd.escaping import visible
from sskd.reading import Reading

SMALL = 16 << 20  # bytes of shards, up to which reading what lies in them takes less than half a second
NAMES = "classes.txt"  # beside the shards: a class name a line


@dataclass(frozen=True)
class Members:
    """Images inside tar files, found by their offsets: a `Reader`. Columns, since workers get a copy of it."""

    tars: Sequence[str]
    tar: Sequence[int]  # in which of them each image lies
    offsets: Sequence[int]
    lengths: Sequence[int]
    members: Sequence[str]

    @property
    def names(self) -> "Members":
        """See `Reader`."""
        return self

    def read(self, i: int) -> bytes:
        """The member's content."""
        with Path(self.tars[self.tar[i]]).open("rb") as file:
            file.seek(self.offsets[i])
            return file.read(self.lengths[i])

    def name(self, i: int) -> str:
        """The member and its shard."""
        return f"{self.members[i]} of {self.tars[self.tar[i]]}"

    def identity(self, i: int) -> str:
        """Shard, member and length."""
        return f"{self.name(i)} {self.lengths[i]}"


def load(path: str | None, reading: Reading) -> Source:
    """Read the shards of a folder. Their tables of contents are read once; images then come in any order.

    Labels are class numbers or names, in KEY.cls, or else in KEY.txt or under "label" in KEY.json; `reading.label`
    names an extension or a field of the JSON. Class names come from classes.txt, if it is there. Raises `UserError`
    that names the shard.
    """
    if path is None:
        raise UserError("The data set family shards needs a folder of tar files: say shards:PATH.")
    folder = Path(path).expanduser()
    train, test, others = _find_splits(folder, reading)
    contents = _contents(train, reading)
    if not contents["names"]:
        raise UserError(f"There are no images in the training shards of {folder}, {train[0].name} first.")
    tests = _contents(test, reading) if test else None
    if tests and tests["names"] and tests["kind"] != contents["kind"]:
        raise UserError(
            f"{folder} has its labels in {contents['kind']} of the training shards, but in {tests['kind']} of the test "
            "shards. Name one with --reading.label."
        )
    if not reading.label and not (folder / NAMES).is_file():
        refuse_distinct(contents["labels"], f"{folder}, labels in {contents['kind']}", option(contents["kind"]))
    names = _names(folder, contents["labels"])
    note = f"{folder.name}: {len(train)} training and {len(test)} test shards, labels in {contents['kind']}"
    note += f"; not used: {shortened([tar.name for tar in others])}." if others else "."
    notes = (note, *contents["notes"], *(tests["notes"] if tests else ()), *name_notes(names, "labels"))
    splits = [_split(one, names, folder) if one and one["names"] else None for one in (contents, tests)]
    assert splits[0] is not None
    return settle(Encoded(visible(folder.resolve().name), names, splits[0], splits[1], notes=notes), reading)


def _find_splits(folder: Path, reading: Reading) -> tuple[list[Path], list[Path], list[Path]]:
    """Training and test shards, and those that are neither."""
    there = sorted(folder.glob("*.tar")) if folder.is_dir() else []
    tars = [tar for tar in there if tar.is_file() and not is_hidden(tar.name)]
    if not tars:
        raise UserError(f"There are no tar files in {folder}; expected train-*.tar and test-*.tar (or val-*.tar).")

    def named(prefix: str) -> list[Path]:
        found = [tar for tar in tars if re.match(rf"{re.escape(prefix)}([-_.0-9]|$)", tar.name)]
        if not found:
            raise UserError(f"{folder} has no shards {prefix}-*.tar, only {shortened([tar.name for tar in tars])}.")
        return found

    def split(*kinds: Kind) -> list[Path]:
        return [tar for tar in tars if (said := split_of(tar.stem)) and said[0] in kinds]

    test = named(reading.test) if reading.test else split("test") or split("validation")
    train = named(reading.train) if reading.train else [tar for tar in split("train") if tar not in test]
    if not train and not reading.train and not test and len(tars) == 1:
        train = tars
    if not train:
        raise UserError(
            f"{folder} has no training shards among {shortened([tar.name for tar in tars])}; expected train-*.tar. "
            "Name how they begin with --reading.train."
        )
    if common := [tar.name for tar in train if tar in test]:
        raise UserError(f"{folder}: {shortened(common)} would be training and test images. Name other test shards.")
    return train, test, [tar for tar in tars if tar not in train and tar not in test]


def _contents(tars: Sequence[Path], reading: Reading) -> Contents:
    """What lies in these shards. Of large ones it is kept until a shard has another name, length or time of change."""
    facts = [(str(tar.resolve()), tar.stat()) for tar in tars]
    if sum(fact.st_size for _, fact in facts) <= SMALL:
        return read_contents(tars, reading)
    told = [[path, fact.st_size, fact.st_mtime_ns, fact.st_ctime_ns] for path, fact in facts]
    key = json.dumps([reading.image, reading.label, told])
    return {**known("contents3", key, lambda: read_contents(tars, reading)), "tars": [str(tar) for tar in tars]}


def _names(folder: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """The class names that classes.txt states, a line each, else those that the labels name.

    Raises:
        UserError: an empty line, which would shift the numbers; a name twice; a file that is no text.
    """
    stated = folder / NAMES
    if not stated.is_file():
        return names_of(labels, str(folder), f"List the classes in {NAMES}, a name a line.")
    try:
        names = [line.strip() for line in stated.read_text(encoding="utf-8").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{stated} is not UTF-8 ({error.reason} at byte {error.start}).") from error
    if "" in names:
        raise UserError(f"{stated} has an empty line, number {names.index('') + 1}. Each line is the name of a class.")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{stated} names the class {twice!r} twice.")
    return tuple(names)


def _split(found: Contents, names: Sequence[str], folder: Path) -> Split:
    numbers = {name: i for i, name in enumerate(names)}
    numbers = {**{str(i): i for i in range(len(names))}, **numbers}
    texts = found["labels"]
    tar = array("q", chain.from_iterable(repeat(i, count) for i, count in enumerate(found["counts"])))
    offsets, lengths = array("q", found["offsets"]), array("q", found["lengths"])
    members = Members(found["tars"], tar, offsets, lengths, found["names"])
    values = [numbers.get(text, -1) for text in texts]
    if -1 in values:
        where = values.index(-1)
        raise UserError(
            f"{members.name(where)} has the label {texts[where]!r}, none of the {len(names)} classes of {folder}. "
            f"Correct it, or list all classes in {NAMES}."
        )
    return Split(members, torch.tensor(values))
