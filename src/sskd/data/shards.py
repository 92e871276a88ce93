"""Tar shards as WebDataset writes them: KEY.jpg beside KEY.cls or KEY.json, in train-*.tar and test-*.tar."""

import json
import re
import tarfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TypedDict

import torch

from sskd.data.encoded import Encoded, Split, settle
from sskd.data.folder import IMAGES
from sskd.data.known import known
from sskd.data.source import Source
from sskd.errors import UserError
from sskd.reading import Reading

LABELS = (".cls", ".json", ".txt")
SMALL = 16 << 20  # bytes of shards, up to which reading what lies in them takes less than half a second
NAMES = "classes.txt"  # beside the shards: a class name a line


@dataclass(frozen=True)
class Members:
    """Images inside tar files, found by their offsets: a `Reader`. Columns, since workers get a copy of it."""

    tars: Sequence[str]
    tar: Sequence[int]  # in which of them each image lies
    offsets: Sequence[int]
    lengths: Sequence[int]
    names: Sequence[str]

    def read(self, i: int) -> bytes:
        """The member's content."""
        with Path(self.tars[self.tar[i]]).open("rb") as file:
            file.seek(self.offsets[i])
            return file.read(self.lengths[i])

    def name(self, i: int) -> str:
        """The member and its shard."""
        return f"{self.names[i]} of {self.tars[self.tar[i]]}"

    def identity(self, i: int) -> str:
        """Shard, member and length."""
        return f"{self.name(i)} {self.lengths[i]}"


def load(path: str | None, reading: Reading) -> Source:
    """Read the shards of a folder. Their tables of contents are read once; images then come in any order.

    Labels are class numbers or names, in KEY.cls or KEY.txt, or under "label" in KEY.json; `reading.label` names
    another extension or field. Class names come from classes.txt, if it is there. Raises `UserError` that names the
    shard.
    """
    if path is None:
        raise UserError("The data set family shards needs a folder of tar files: say shards:PATH.")
    folder = Path(path).expanduser()
    tars = sorted(folder.glob("*.tar")) if folder.is_dir() else []
    if not tars:
        raise UserError(f"There are no tar files in {folder}; expected train-*.tar and test-*.tar (or val-*.tar).")

    def split(*names: str) -> list[Path]:
        return [tar for tar in tars if re.match(rf"({'|'.join(map(re.escape, names))})[-_.0-9]", tar.name)]

    train = split(reading.train) if reading.train else split("train") or (tars if len(tars) == 1 else [])
    test = split(reading.test) if reading.test else split("test") or split("val", "valid", "validation")
    if not train:
        raise UserError(
            f"{folder} has no training shards among {', '.join(tar.name for tar in tars[:5])}; expected train-*.tar. "
            "Name them with --reading.train."
        )
    tables = {kind: _contents(files, reading) for kind, files in (("train", train), ("test", test))}
    names = _names(folder, tables["train"]["labels"])
    splits = {kind: _split(found, names, folder) for kind, found in tables.items() if found["names"]}
    if "train" not in splits:
        raise UserError(f"There are no images in the training shards of {folder}, {train[0].name} first.")
    note = f"{folder.name}: {len(train)} training and {len(test)} test shards."
    return settle(Encoded(folder.resolve().name, names, splits["train"], splits.get("test"), notes=(note,)), reading)


class Contents(TypedDict):
    """The images of some shards, as plain columns, and how many of them each shard holds."""

    tars: list[str]
    counts: list[int]
    offsets: list[int]
    lengths: list[int]
    names: list[str]
    labels: list[str]


def _contents(tars: Sequence[Path], reading: Reading) -> Contents:
    """What lies in these shards. Of large ones it is kept until a shard has another name, length or time of change."""
    facts = [(str(tar.resolve()), tar.stat()) for tar in tars]
    if sum(fact.st_size for _, fact in facts) <= SMALL:
        return _read(tars, reading)
    told = [[path, fact.st_size, fact.st_mtime_ns, fact.st_ctime_ns] for path, fact in facts]
    key = json.dumps([reading.image, reading.label, told])
    return {**known("contents", key, lambda: _read(tars, reading)), "tars": [str(tar) for tar in tars]}


def _read(tars: Sequence[Path], reading: Reading) -> Contents:
    found = Contents(tars=[str(tar) for tar in tars], counts=[], offsets=[], lengths=[], names=[], labels=[])
    for tar in tars:
        images, labels = dict[str, tuple[int, int, str]](), dict[str, str]()
        try:
            with tarfile.open(tar) as archive:
                for member in archive:
                    key, extension = _parts(member.name)
                    if member.isfile() and _is_image(extension, reading):
                        images[key] = (member.offset_data, member.size, member.name)
                    elif member.isfile() and _is_label(extension, reading):
                        file = archive.extractfile(member)
                        labels[key] = _label(file.read() if file else b"", extension, reading)
        except (tarfile.TarError, OSError, ValueError) as error:
            raise UserError(f"{tar} is not a whole tar file, or a label in it is damaged ({error}).") from error
        if missing := [key for key in images if key not in labels]:
            raise UserError(
                f"{tar} has no label for {len(missing)} of its {len(images)} images, first {missing[0]}: expected "
                f"{missing[0]}.cls, .txt or .json beside it. Name another extension or field with --reading.label."
            )
        found["counts"].append(len(images))
        for key, (offset, length, name) in images.items():
            found["offsets"].append(offset)
            found["lengths"].append(length)
            found["names"].append(name)
            found["labels"].append(labels[key])
    return found


def _parts(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the file's name."""
    folder, _, file = name.rpartition("/")
    key, _, extension = file.partition(".")
    return f"{folder}/{key}", f".{extension.lower()}"


def _is_image(extension: str, reading: Reading) -> bool:
    return extension == f".{reading.image}" if reading.image else extension in IMAGES


def _is_label(extension: str, reading: Reading) -> bool:
    return extension in LABELS or extension == f".{reading.label}"


def _label(content: bytes, extension: str, reading: Reading) -> str:
    if extension != ".json":
        return content.decode().strip()
    fields = json.loads(content)
    field = reading.label or "label"
    if not isinstance(fields, dict) or field not in fields:
        raise ValueError(f"no field {field!r} in its JSON")
    return str(fields[field])


def _names(folder: Path, labels: Sequence[str]) -> tuple[str, ...]:
    stated = folder / NAMES
    if stated.is_file():
        return tuple(line.strip() for line in stated.read_text().splitlines() if line.strip())
    if all(label.isdecimal() for label in labels):
        return tuple(map(str, range(max(map(int, labels), default=-1) + 1)))
    return tuple(sorted(set(labels)))


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
