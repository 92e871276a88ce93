"""What lies in tar shards: images with their places, and the label of each."""

import json
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from sskd.data.image_files import IMAGE_EXTENSIONS, is_hidden, shortened
from sskd.data.labels import LONGEST, label_text, refuse_labels
from sskd.errors import UserError
from sskd.escaping import visible
from sskd.reading import Reading

TEXTS = (".cls", ".txt")  # extensions whose content may be a label
FIELD = "label"  # of KEY.json
LARGEST_JSON = 16 << 20  # bytes


class Contents(TypedDict):
    """The images of some shards, as plain columns, and how many of them each shard holds."""

    tars: list[str]
    counts: list[int]
    offsets: list[int]
    lengths: list[int]
    names: list[str]
    labels: list[str]
    kind: str  # where the labels stand: ".cls", "field label of .json"
    notes: list[str]


@dataclass
class _Shard:
    """What was found in one tar file, by key."""

    images: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # offset, length, name
    labels: dict[str, dict[str, str]] = field(default_factory=dict)  # by where they stand
    wrong: dict[str, dict[str, str]] = field(default_factory=dict)  # likewise: what stands there instead of a label
    other: Counter[str] = field(default_factory=Counter)  # files that are neither, by extension
    left_out: int = 0  # hidden members, and links
    unused: set[str] = field(default_factory=set)  # what could be labels, but stands beside .cls

    def complete(self) -> set[str]:
        """Where every image has something that could be its label."""
        kinds = self.labels.keys() | self.wrong.keys()
        nothing: Mapping[str, str] = {}
        return {
            kind
            for kind in kinds
            if all(key in self.labels.get(kind, nothing) or key in self.wrong.get(kind, nothing) for key in self.images)
        }


def read_contents(tars: Sequence[Path], reading: Reading) -> Contents:
    """Read the tables of contents, and the labels.

    Raises:
        UserError: a file that is no whole tar file; images without a label, or with several that it may be.
    """
    shards = [_read(tar, reading) for tar in tars]
    filled = [(tar, shard) for tar, shard in zip(tars, shards, strict=True) if shard.images]
    kind = _chosen(filled, reading) if filled else ""
    wrong = [
        (visible(shard.images[key][2]), what)
        for _, shard in filled
        for key, what in shard.wrong.get(kind, {}).items()
        if key in shard.images
    ]
    refuse_labels(wrong, sum(len(shard.images) for shard in shards), f"{tars[0].parent}, labels in {kind}")
    found = Contents(
        tars=[str(tar) for tar in tars], counts=[], offsets=[], lengths=[], names=[], labels=[], kind=kind, notes=[]
    )
    for shard in shards:
        found["counts"].append(len(shard.images))
        for key, (offset, length, name) in shard.images.items():
            found["offsets"].append(offset)
            found["lengths"].append(length)
            found["names"].append(name)
            found["labels"].append(shard.labels[kind][key])
    found["notes"] = _notes(tars, shards, kind)
    return found


def _notes(tars: Sequence[Path], shards: Sequence[_Shard], kind: str) -> list[str]:
    notes = list[str]()
    if unused := set[str]().union(*(shard.unused for shard in shards)):
        names = " or ".join(sorted(option(one) for one in unused))
        notes.append(f"{tars[0].name}: labels are read from {kind}, not from {' and '.join(sorted(unused))}; for these")
        notes[-1] += f" say --reading.label {names}."
    other = sum((shard.other for shard in shards), Counter[str]())
    if other:
        kinds = shortened([f"{count:,} {visible(extension)}" for extension, count in other.most_common()])
        notes.append(f"{tars[0].name}{' ...' if len(tars) > 1 else ''}: members that are not used: {kinds}.")
    if left_out := sum(shard.left_out for shard in shards):
        notes.append(f"{tars[0].parent.name}: {left_out:,} hidden members or links were left out.")
    return notes


def _chosen(filled: Sequence[tuple[Path, _Shard]], reading: Reading) -> str:
    """Where the labels stand: what the user named, else .cls, else the one place that all images have."""
    kinds = [shard.complete() for _, shard in filled]
    common = set[str].intersection(*kinds)
    if len(common) == 1 or ".cls" in common:
        return ".cls" if ".cls" in common else common.pop()
    if reading.label and common:  # an extension comes before a field of the same name
        return min(common, key=lambda kind: kind != f".{reading.label}")
    if common:
        options = {option(kind): kind for kind in sorted(common)}
        raise UserError(
            f"{filled[0][0]} has {' and '.join(options.values())} for each image, and both may be its label. Say which "
            f"is: --reading.label {' or --reading.label '.join(options)}."
        )
    tar, shard = next(((tar, shard) for (tar, shard), kind in zip(filled, kinds, strict=True) if not kind), filled[-1])
    asked = (
        f"no {reading.label!r} (neither KEY.{reading.label} nor a field of KEY.json)" if reading.label else "no label"
    )
    there = {kind: len(shard.labels.get(kind, {}).keys() & shard.images.keys()) for kind in shard.labels}
    fullest = max(there, key=lambda kind: there[kind], default="")
    missing = [key for key in shard.images if key not in shard.labels.get(fullest, {})] or [*shard.images]
    if shard.complete():
        raise UserError(
            f"{filled[0][0].name} has its labels in {' or '.join(sorted(kinds[0]))}, {tar.name} in "
            f"{' or '.join(sorted(shard.complete()))}. Write them alike."
        )
    raise UserError(
        f"{tar} has {asked} for {len(missing)} of its {len(shard.images)} images, first {visible(missing[0])}: "
        f"expected {visible(missing[0])}.cls, .txt or a field {FIELD!r} in .json beside it. Name another extension "
        f"or field with --reading.label.{_folders_hint(shard)}"
    )


def _folders_hint(shard: _Shard) -> str:
    """What to do with a folder of class folders that was packed into a tar file."""
    folders = sorted({name.rpartition("/")[0] for _, _, name in shard.images.values()})
    if len(folders) < 2 or shard.labels or shard.wrong:
        return ""
    named = shortened([visible(folder) for folder in folders])
    return f" If the folders in it are the classes ({named}): unpack it and give the folder that holds them."


def option(kind: str) -> str:
    """A place of labels as `--reading.label` names it."""
    return kind.removesuffix(" of .json").removeprefix("field ").removeprefix(".")


def _read(tar: Path, reading: Reading) -> _Shard:
    shard = _Shard()
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                _take(archive, member, shard, reading, tar)
    except (tarfile.TarError, OSError, EOFError) as error:
        advice = "It is compressed: unpack it first." if _compressed(tar) else "Copy or download it again."
        raise UserError(f"{tar} is not a whole tar file ({error}). {advice}") from error
    if ".cls" in (complete := shard.complete()) and not reading.label:  # spares the memory of captions
        shard.unused = complete - {".cls"}
        shard.labels, shard.wrong = ({".cls": one.get(".cls", {})} for one in (shard.labels, shard.wrong))
    return shard


def _compressed(tar: Path) -> bool:
    with suppress(OSError), tar.open("rb") as file:
        return file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5")  # gzip, bzip2, xz, zstd
    return False


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, shard: _Shard, reading: Reading, tar: Path) -> None:
    if member.isdir():
        return
    parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
    if not member.isfile() or any(is_hidden(part) for part in parts):
        shard.left_out += 1
        return
    key, extension = split_key(member.name)
    if extension == f".{reading.image}" if reading.image else extension in IMAGE_EXTENSIONS:
        if key in shard.images and split_key(shard.images[key][2])[1] != extension:
            first = split_key(shard.images[key][2])[1]
            raise UserError(
                f"{tar} has two images {visible(key)}{first} and {extension}. Say which is meant: "
                f"--reading.image {first[1:]} or --reading.image {extension[1:]}."
            )
        shard.images[key] = (member.offset_data, member.size, member.name)
    elif extension == ".json":
        _take_json(archive, member, key, shard, reading)
    elif extension == f".{reading.label}" if reading.label else extension in TEXTS:
        _note(shard, extension, key, lambda: _text(archive, member))
    else:
        shard.other[extension or "without an extension"] += 1


def _note(shard: _Shard, kind: str, key: str, value: Callable[[], object]) -> None:
    try:
        text = label_text(value())
    except ValueError as error:
        shard.wrong.setdefault(kind, {})[key] = str(error)
    else:
        shard.labels.setdefault(kind, {})[key] = text


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > LONGEST:
        raise ValueError(f"a text of {member.size:,} bytes")
    file = archive.extractfile(member)
    try:
        return (file.read() if file else b"").decode()
    except UnicodeDecodeError as error:
        raise ValueError("no UTF-8 text") from error


def _take_json(archive: tarfile.TarFile, member: tarfile.TarInfo, key: str, shard: _Shard, reading: Reading) -> None:
    """A field of KEY.json; KEY.json without it is metadata."""
    name = FIELD if reading.label in (None, "json") else reading.label
    kind = f"field {name} of .json"
    if member.size > LARGEST_JSON:
        shard.other[".json of more than 16 MiB"] += 1
        return
    file = archive.extractfile(member)
    try:
        fields = json.loads(file.read() if file else b"")
    except (ValueError, RecursionError) as error:
        why = "JSON that is nested too deeply" if isinstance(error, RecursionError) else "no JSON"
        shard.wrong.setdefault(kind, {})[key] = why
        return
    if isinstance(fields, dict) and name in fields:
        _note(shard, kind, key, lambda: fields[name])


def split_key(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the file's name."""
    folder, _, file = name.rpartition("/")
    key, _, extension = file.partition(".")
    return f"{folder}/{key}" if folder else key, f".{extension.lower()}" if extension else ""
