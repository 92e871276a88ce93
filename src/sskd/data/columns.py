"""Which columns of image parquet files hold images and labels, and what the labels are."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64
from torch import Tensor

from sskd.errors import UserError, unknown
from sskd.reading import Reading

IMAGE_COLUMNS = ("img", "image")  # taken by name where the schema does not say what a column is
LABEL_COLUMNS = ("fine_label", "label", "labels")


@dataclass(frozen=True)
class Columns:
    """Where a file keeps its images and labels, and the class names if its schema states them."""

    image: str
    label: str
    label_kind: Literal["numbers", "texts"]
    names: tuple[str, ...] | None


@contextmanager
def damage_named(file: Path) -> Iterator[None]:
    """Name the file that cannot be read.

    Raises:
        UserError: it is damaged.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a whole parquet file ({error}). Copy or download it again.") from error


def agreed_columns(files: Sequence[Path], reading: Reading) -> Columns:
    """The columns and class names of all the files, which must be the same in each.

    Raises:
        UserError: they are not, or there are none; a column that `reading` names is missing.
    """
    columns = _guess_columns(files[0], reading)
    for file in files[1:]:
        other = _guess_columns(file, reading)
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


def _guess_columns(file: Path, reading: Reading) -> Columns:
    """Find the image and label columns from the schema's `huggingface` metadata, else from their names."""
    with damage_named(file), pq.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow
    stated = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: dict[str, Any] = stated.get("info", {}).get("features") or {}
    types = {column: (features.get(column) or {}) for column in schema.names}
    images = [column for column, feature in types.items() if _is(feature, "Image")]
    classes = {c: tuple(f["names"]) for c, f in types.items() if _is(f, "ClassLabel") and "names" in f}
    for asked in (reading.image, reading.label):
        if asked is not None and asked not in types:
            raise unknown(f"column of {file}", asked, types)
    image = (
        reading.image
        or _first(IMAGE_COLUMNS, images)
        or next(iter(images), None)
        or _first(IMAGE_COLUMNS, schema.names)
    )
    label = (
        reading.label
        or _first(("label", "fine_label"), classes)
        or max(classes, key=lambda column: len(classes[column]), default=None)
        or _first(LABEL_COLUMNS, schema.names)
    )
    if image is None or label is None:
        raise UserError(
            f"{file} has no {'label' if image else 'image'} column among {', '.join(schema.names)}. "
            f"Name the images {' or '.join(IMAGE_COLUMNS)} and the labels {' or '.join(LABEL_COLUMNS)}."
        )
    return Columns(image, label, _label_kind(schema, label, file), classes.get(label))


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


def read_column(file: Path, column: str) -> Any:
    """One column of a file, as a pyarrow ChunkedArray."""
    with damage_named(file), pq.ParquetFile(file) as parquet:
        values = parquet.read(columns=[column]).column(0)
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def read_labels(
    train_files: Sequence[Path], test_files: Sequence[Path], columns: Columns
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "M"], tuple[str, ...]]:
    """Training and test labels as class numbers, and the class names."""
    stored = {file: read_column(file, columns.label) for file in (*train_files, *test_files)}
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


def _infer_names(train_labels: Sequence[Any], columns: Columns) -> tuple[str, ...]:
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


def _number_labels(labels: Any, names: tuple[str, ...], file: Path, columns: Columns) -> Int64[Tensor, "n"]:
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
