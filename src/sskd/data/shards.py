"""Tar shards as WebDataset writes them: KEY.jpg beside KEY.cls or KEY.json, in train-*.tar and test-*.tar."""

import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sskd.data.encoded import Encoded, Split, settle
from sskd.data.folder import IMAGES
from sskd.data.source import Source
from sskd.errors import UserError
from sskd.reading import Reading

LABELS = (".cls", ".json", ".txt")
NAMES = "classes.txt"  # beside the shards: a class name a line


@dataclass(frozen=True)
class Members:
    """Images inside tar files, found by their offsets: a `Reader`."""

    places: Sequence[tuple[str, int, int, str]]  # tar, offset, length, name

    def read(self, i: int) -> bytes:
        """The member's content."""
        shard, offset, length, _ = self.places[i]
        with Path(shard).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def name(self, i: int) -> str:
        """The member and its shard."""
        return f"{self.places[i][3]} of {self.places[i][0]}"

    def identity(self, i: int) -> str:
        """Shard, member and length."""
        return f"{self.name(i)} {self.places[i][2]}"


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
    members = {kind: _members(files, reading) for kind, files in (("train", train), ("test", test))}
    names = _names(folder, [label for _, label in members["train"]])
    splits = {kind: _split(found, names, folder) for kind, found in members.items() if found}
    note = f"{folder.name}: {len(train)} training and {len(test)} test shards."
    return settle(Encoded(folder.resolve().name, names, splits["train"], splits.get("test"), notes=(note,)), reading)


Found = tuple[tuple[str, int, int, str], str]


def _members(tars: Sequence[Path], reading: Reading) -> list[Found]:
    """Each image's place and its label as text."""
    found: list[Found] = []
    for tar in tars:
        images, labels = dict[str, tuple[str, int, int, str]](), dict[str, str]()
        try:
            with tarfile.open(tar) as archive:
                for member in archive:
                    key, extension = _parts(member.name)
                    if member.isfile() and _is_image(extension, reading):
                        images[key] = (str(tar), member.offset_data, member.size, member.name)
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
        found += [(images[key], labels[key]) for key in images]
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


def _split(found: Sequence[Found], names: Sequence[str], folder: Path) -> Split:
    numbers = {name: i for i, name in enumerate(names)}
    texts = [label for _, label in found]
    values = [numbers.get(text, int(text) if text.isdecimal() and int(text) < len(names) else -1) for text in texts]
    if -1 in values:
        where = found[values.index(-1)]
        raise UserError(
            f"{where[0][3]} of {where[0][0]} has the label {where[1]!r}, none of the {len(names)} classes of {folder}. "
            f"Correct it, or list all classes in {NAMES}."
        )
    return Split(Members([place for place, _ in found]), torch.tensor(values))
