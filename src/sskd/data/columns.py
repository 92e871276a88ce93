"""Which columns of image parquet files hold images and labels, and what the labels are."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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

from sskd.data.labels import label_text, numbered_names, refuse_distinct, refuse_labels
from sskd.errors import UserError, unknown
from sskd.reading import Reading
from sskd.validation import convert

EXPANDED = 256 << 20  # bytes that a file may always take in memory, however small it is
ROWS_AT_ONCE = 1024
IMAGE_COLUMNS = ("img", "image")  # taken by name where the schema does not say what a column is
LABEL_COLUMNS = ("fine_label", "label", "labels")


@dataclass(frozen=True)
class Columns:
    """Where a file keeps its images and labels, and the class names if its schema states them.

    `others` are columns that could have been the labels.
    """

    image: str
    label: str
    label_kind: Literal["numbers", "texts"]
    names: tuple[str, ...] | None
    others: tuple[str, ...] = field(default=(), compare=False)


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
    features = _features(schema, file)
    types = {column: (features.get(column) or {}) for column in schema.names}
    images = [column for column, feature in types.items() if _is(feature, "Image")]
    stated = {column: feature["names"] for column, feature in types.items() if _is(feature, "ClassLabel", "names")}
    classes = {
        column: _checked_names(
            convert(names, tuple[str, ...], f"{file}, names of the classes in {column}"), column, file
        )
        for column, names in stated.items()
    }
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
    others = tuple(column for column in classes or _present(LABEL_COLUMNS, schema.names) if column != label)
    return Columns(image, label, _label_kind(schema, label, file), classes.get(label), others)


def _features(schema: Any, file: Path) -> dict[str, Any]:
    """What the schema's metadata says of the columns, as the package datasets writes it."""
    where = f"{file}, its metadata named huggingface"
    advice = "Write the file anew with the package datasets, or without that metadata."
    try:
        stated = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError) as error:
        why = "is nested too deeply" if isinstance(error, RecursionError) else f"is no JSON ({error})"
        raise UserError(f"{where} {why}. {advice}") from error
    info = convert(stated, dict[str, Any], where, advice).get("info")
    features = convert(info or {}, dict[str, Any], f"{where}, info", advice).get("features")
    return convert(features or {}, dict[str, Any], f"{where}, info.features", advice)


def _checked_names(names: tuple[str, ...], column: str, file: Path) -> tuple[str, ...]:
    for i, name in enumerate(names):
        if not name.strip() or name in names[:i]:
            what = "twice" if name.strip() else "without a name"
            raise UserError(f"{file} has a class {what} in {column}: {name!r}, number {i}. Correct its class names.")
    return names


def _label_kind(schema: Any, label: str, file: Path) -> Literal["numbers", "texts"]:
    field_type = schema.field(label).type
    stored = field_type.value_type if pa.types.is_dictionary(field_type) else field_type
    if pa.types.is_integer(stored):
        return "numbers"
    if pa.types.is_string(stored) or pa.types.is_large_string(stored):
        return "texts"
    raise UserError(
        f"The label column {label} of {file} holds {stored}; expected integers from 0 or names of classes. "
        "Write them so, or name another column with --reading.label."
    )


def _is(feature: object, kind: str, having: str = "_type") -> bool:
    return isinstance(feature, dict) and feature.get("_type") == kind and having in feature


def _present(preferred: Sequence[str], present: Sequence[str]) -> list[str]:
    return [column for column in preferred if column in present]


def _first(preferred: Sequence[str], present: Any) -> str | None:
    return next((column for column in preferred if column in present), None)


def read_column(file: Path, column: str, reading: Reading) -> Any:
    """One column of a file, as a pyarrow ChunkedArray.

    Raises:
        UserError: the file is damaged, or takes far more memory than its size says; see `Reading.max_expansion`.
    """
    most = max(EXPANDED, int(reading.max_expansion * file.stat().st_size))
    with damage_named(file), pq.ParquetFile(file) as parquet:
        stated = _stated_size(parquet, column)
        _refuse_expansion(file, stated, most)
        parts, size = [], 0
        # A value may be stored once for many rows, so each row may become as large as all that is stored.
        for batch in parquet.iter_batches(min(max(most // max(stated, 1), 1), ROWS_AT_ONCE), columns=[column]):
            size += batch.nbytes
            _refuse_expansion(file, size, most)
            parts.append(batch.column(0))
        values = pa.chunked_array(parts, parquet.schema_arrow.field(column).type)
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _stated_size(parquet: Any, column: str) -> int:
    """Bytes of a column, unpacked, as the file states them; a struct is several columns there."""
    groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
    stored = [group.column(i) for group in groups for i in range(group.num_columns)]
    return sum(part.total_uncompressed_size for part in stored if part.path_in_schema.split(".")[0] == column)


def _refuse_expansion(file: Path, size: int, most: int) -> None:
    if size > most:
        raise UserError(
            f"{file} has {file.stat().st_size:,} bytes and would take {size:,} or more in memory; encoded images "
            f"hardly shrink, so it holds something else, or was made to fill the memory. At most {most:,} are read; "
            "--reading.max_expansion allows more."
        )


def read_labels(
    train_files: Sequence[Path], test_files: Sequence[Path], columns: Columns, reading: Reading
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "M"], tuple[str, ...]]:
    """Training and test labels as class numbers, and the class names."""
    stored = {file: read_column(file, columns.label, reading) for file in (*train_files, *test_files)}
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
        if columns.label_kind == "texts":
            _refuse_odd_texts(labels, f"{file}, column {columns.label}")
    names = columns.names or _infer_names(
        [stored[file] for file in train_files], columns, train_files[0].parent, reading
    )
    train, test = (
        torch.cat([_number_labels(stored[file], names, file, columns) for file in files])
        for files in (train_files, test_files)
    )
    return train, test, names


def _refuse_odd_texts(labels: Any, where: str) -> None:
    """Refuse texts that are empty, or lists written as text."""
    odd = dict[str, str]()
    for text in labels.unique().to_pylist():
        try:
            label_text(text)
        except ValueError as error:
            odd[text] = str(error)
    if odd:
        rows = [(f"row {row} from 0", odd[text]) for row, text in enumerate(labels.to_pylist()) if text in odd]
        refuse_labels(rows, len(labels), where)


def _infer_names(train_labels: Sequence[Any], columns: Columns, folder: Path, reading: Reading) -> tuple[str, ...]:
    """The class names where the schema states none: the sorted texts, or "0" to "C-1"."""
    if columns.label_kind == "texts":
        texts = [text for labels in train_labels for text in labels.to_pylist()]
        if not reading.label:
            refuse_distinct(texts, f"{folder}, column {columns.label}", columns.label)
        return tuple(sorted(set(texts)))
    last = max(pc.max(labels).as_py() for labels in train_labels if len(labels))
    return numbered_names(last, sum(map(len, train_labels)), f"The label column {columns.label}", "")


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
