"""A local folder of image parquet files, laid out as the Hugging Face hub stores data sets."""

import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from sskd.data.source import Images, Source, channel_statistics
from sskd.data.source import square as make_square
from sskd.errors import UserError

IMAGE_COLUMNS = ("img", "image")  # taken by name where the schema does not say what a column is
LABEL_COLUMNS = ("fine_label", "label", "labels")
# what published networks were trained with
CIFAR100_STATISTICS = ((0.5071, 0.4866, 0.4409), (0.2675, 0.2565, 0.2761))
_EXPECTED = "train-*.parquet or train.parquet, and likewise test (or validation), in the folder or in its data/"
_ROWS = 256  # images a task: enough that handing tasks to threads costs nothing


@dataclass(frozen=True)
class _Columns:
    """Where a file keeps its images and labels, and the class names if its schema states them."""

    image: str
    label: str
    label_kind: Literal["numbers", "texts"]
    names: tuple[str, ...] | None


def load(path: str | None, square: str) -> Source:
    """Read train-*.parquet and test-*.parquet of the folder `path` into memory, decoded.

    Images are structs with encoded `bytes`, or plain binary: 1 channel if all are grey, else 3; all of one
    size. `square` is "crop" or "refuse", for images that are not square. `mean` and `std` come from the
    training pixels; CIFAR-100 takes the published ones. Raises `UserError` that names the file (and row).
    """
    if path is None:
        raise UserError("The data set family parquet needs a folder: say parquet:PATH.")
    folder = Path(path).expanduser()
    name = folder.resolve().name
    train_files, test_files = _find_splits(folder)
    columns = _agreed_columns([*train_files, *test_files])
    # labels first: they are read in no time, and what is wrong with them should not wait for the images
    train_labels, test_labels, class_names = _read_labels(train_files, test_files, columns)
    train_parts = _decode_files(train_files, columns.image)
    test_parts = _decode_files(test_files, columns.image)
    channels = max(part.shape[1] for part in train_parts + test_parts)
    _check_sizes({tuple(part.shape[2:]): None for part in train_parts + test_parts}, name)

    def join(parts: list[Tensor], labels: Tensor) -> Images:
        pixels = torch.cat([part.expand(-1, channels, -1, -1) for part in parts])
        return make_square(Images(pixels, labels), square, name)

    train, test = join(train_parts, train_labels), join(test_parts, test_labels)
    facts = (columns.label, len(class_names), *train.pixels.shape[1:])
    cifar100 = facts == ("fine_label", 100, 3, 32, 32)
    mean, std = CIFAR100_STATISTICS if cifar100 else channel_statistics(train.pixels)
    return Source(name, class_names, train, test, mean, std)


def _find_splits(folder: Path) -> tuple[list[Path], list[Path]]:
    """The training and the test files of a folder, each in order of their names."""
    if not folder.is_dir():
        wrong = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {wrong}; expected a folder with {_EXPECTED}.")
    found = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
    if not found:
        raise UserError(f"There are no parquet files in {folder}; looked for {_EXPECTED}.")

    def split(pattern: str) -> list[Path]:
        return [file for file in found if re.fullmatch(rf"{pattern}\.parquet", file.name)]

    train = split(r"train(-.*)?")
    test = split(r"test(-.*)?") or split(r"valid.*")
    for kind, files in (("training", train), ("test", test)):
        if not files:
            there = ", ".join(file.name for file in found)
            raise UserError(f"{folder} has no {kind} split, only {there}; expected {_EXPECTED}.")
        _check_shards(files)
    return train, test


def _check_shards(files: Sequence[Path]) -> None:
    """Refuse a split whose file names count shards (-00000-of-00004) that are not each there once."""
    numbered = [(int(m[1]), int(m[2])) for file in files if (m := re.search(r"-(\d+)-of-(\d+)", file.name))]
    if numbered and sorted(numbered) != [(shard, len(files)) for shard in range(len(files))]:
        raise UserError(
            f"Not one complete set of shards in {files[0].parent}: {', '.join(f.name for f in files)}. "
            "Copy the missing ones, remove those of another set, or rename them (train-a.parquet ...)."
        )


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a whole parquet file ({error}). Copy or download it again.") from error


def _agreed_columns(files: Sequence[Path]) -> _Columns:
    """The columns and class names of all the files, which must be the same in each."""
    columns = _guess_columns(files[0])
    for file in files[1:]:
        other = _guess_columns(file)
        if other.names != columns.names:
            pairs = zip_longest(columns.names or (), other.names or ())
            first, second = next((a, b) for a, b in pairs if a != b)
            raise UserError(
                f"{files[0]} and {file.name} have different class lists, first {first!r} against {second!r}. "
                "Write them anew with the same one."
            )
        if other != columns:
            raise UserError(
                f"{files[0]} stores {columns.image}, {columns.label} ({columns.label_kind}); "
                f"{file.name} stores {other.image}, {other.label} ({other.label_kind}). Write them alike."
            )
    return columns


def _guess_columns(file: Path) -> _Columns:
    """Find the image and label columns from the schema's `huggingface` metadata, else from their names."""
    with _damage_named(file), pq.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow
    stated = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: dict[str, Any] = stated.get("info", {}).get("features") or {}
    types = {column: (features.get(column) or {}) for column in schema.names}
    images = [column for column, feature in types.items() if _is(feature, "Image")]
    classes = {c: tuple(f["names"]) for c, f in types.items() if _is(f, "ClassLabel") and "names" in f}
    image = _first(IMAGE_COLUMNS, images) or next(iter(images), None) or _first(IMAGE_COLUMNS, schema.names)
    label = (
        _first(("label", "fine_label"), classes)
        or max(classes, key=lambda column: len(classes[column]), default=None)
        or _first(LABEL_COLUMNS, schema.names)
    )
    if image is None or label is None:
        raise UserError(
            f"{file} has no {'label' if image else 'image'} column among {', '.join(schema.names)}. "
            f"Name the images {' or '.join(IMAGE_COLUMNS)} and the labels {' or '.join(LABEL_COLUMNS)}."
        )
    return _Columns(image, label, _label_kind(schema, label, file), classes.get(label))


def _label_kind(schema: Any, label: str, file: Path) -> Literal["numbers", "texts"]:
    field_type = schema.field(label).type
    stored = field_type.value_type if pa.types.is_dictionary(field_type) else field_type
    if pa.types.is_integer(stored):
        return "numbers"
    if pa.types.is_string(stored) or pa.types.is_large_string(stored):
        return "texts"
    raise UserError(f"The label column {label} of {file} holds {stored}; expected integers from 0 or names of classes.")


def _is(feature: object, kind: str) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == kind


def _first(preferred: Sequence[str], present: Any) -> str | None:
    return next((column for column in preferred if column in present), None)


def _read_column(file: Path, column: str) -> Any:
    """One column of a file, as a pyarrow ChunkedArray."""
    with _damage_named(file), pq.ParquetFile(file) as parquet:
        values = parquet.read(columns=[column]).column(0)
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _read_labels(
    train_files: Sequence[Path], test_files: Sequence[Path], columns: _Columns
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "M"], tuple[str, ...]]:
    """Training and test labels as class numbers, and the class names."""
    stored = {file: _read_column(file, columns.label) for file in (*train_files, *test_files)}
    for split, files in (("train", train_files), ("test", test_files)):
        if not any(len(stored[file]) for file in files):
            raise UserError(f"The {split} split in {files[0].parent} holds no images.")
    for file, labels in stored.items():
        if labels.null_count:
            row = pc.index(pc.is_null(labels), True).as_py()
            raise UserError(
                f"{file} has no label in row {row} (from 0) of its column {columns.label}, nor in "
                f"{labels.null_count - 1} other rows. Label these images or leave them out."
            )
    names = columns.names or _infer_names([stored[file] for file in train_files], columns)
    train, test = (
        torch.cat([_number_labels(stored[file], names, file, columns) for file in files])
        for files in (train_files, test_files)
    )
    return train, test, names


def _infer_names(train_labels: Sequence[Any], columns: _Columns) -> tuple[str, ...]:
    """The class names where the schema states none: the sorted texts, or "0" to "C-1"."""
    if columns.label_kind == "texts":
        return tuple(sorted({text for labels in train_labels for text in labels.unique().to_pylist()}))
    last = max(pc.max(labels).as_py() for labels in train_labels if len(labels))
    if last >= (
        images := sum(map(len, train_labels))
    ):  # also keeps a column of identifiers from becoming a billion classes
        raise UserError(
            f"The labels in {columns.label} go up to {last}, but there are only {images} training images. "
            "Without class names in the file, labels must number the classes 0..C-1."
        )
    return tuple(map(str, range(last + 1)))


def _number_labels(labels: Any, names: tuple[str, ...], file: Path, columns: _Columns) -> Int64[Tensor, "n"]:
    if columns.label_kind == "texts":
        numbers = pc.fill_null(pc.index_in(labels, value_set=pa.array(names, labels.type)), -1)
        problem = "train and test have different class lists; use the same classes in both"
    else:
        numbers = labels
        problem = f"labels must be 0..{len(names) - 1} (-1 often marks a split published without labels)"
    values = np.array(numbers.to_numpy(), dtype=np.int64)
    wrong = (values < 0) | (values >= len(names))
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{file} has the label {labels[row].as_py()!r} in row {row} (from 0) of {columns.label}, none of "
            f"the {len(names)} classes: {problem}."
        )
    return torch.from_numpy(values)


def _decode_files(files: Sequence[Path], column: str) -> list[UInt8[Tensor, "n C H W"]]:
    """The images of the files in order, in parts of at most `_ROWS`; an all-grey part has one channel."""
    parts: list[UInt8[Tensor, "n C H W"]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the decoders release the interpreter's lock
        for file in files:
            encoded = _read_column(file, column)
            if pa.types.is_struct(encoded.type) and encoded.type.get_field_index("bytes") >= 0:
                encoded = pc.struct_field(encoded, "bytes")
            if not (pa.types.is_binary(encoded.type) or pa.types.is_large_binary(encoded.type)):
                raise UserError(
                    f"The image column {column} of {file} holds {encoded.type}; expected encoded images "
                    "(PNG, JPEG) as binary, or as a struct with a field `bytes`."
                )
            parts += pool.map(partial(_decode_rows, file, encoded), range(0, len(encoded), _ROWS))
    return parts


def _decode_rows(file: Path, encoded: Any, start: int) -> UInt8[Tensor, "n C H W"]:
    images = []
    for row, data in enumerate(encoded.slice(start, _ROWS).to_pylist(), start):
        try:
            images.append(_decode(data))
        except Exception as error:  # the decoders raise whatever they run into, from OSError to SyntaxError
            raise UserError(
                f"The image in row {row} (from 0) of {file} cannot be decoded: {error}. Repair or remove it."
            ) from error
    _check_sizes({image.shape[:2]: None for image in images}, str(file))
    if any(image.ndim == 3 for image in images):
        images = [image if image.ndim == 3 else np.stack([image] * 3, axis=2) for image in images]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return torch.from_numpy(np.stack(images)).unsqueeze(1)


def _decode(data: bytes | None) -> UInt8[np.ndarray, "H W *C"]:
    """HxW if the image is grey, else HxWx3, turned upright."""
    if data is None:
        raise ValueError("it holds no bytes")
    with Image.open(io.BytesIO(data)) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"it has more than 8 bits a channel, mode {image.mode}")
        return np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB"))


def _check_sizes(sizes: dict[tuple[int, ...], None], where: str) -> None:
    """Refuse more than one (height, width); a dict keeps them in the order in which they came."""
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = list(sizes)[:2]
        raise UserError(
            f"The images of {where} have different sizes, such as {height}x{width} and {other_height}x"
            f"{other_width} (height x width). Resize them all to one size first and write the files anew."
        )
