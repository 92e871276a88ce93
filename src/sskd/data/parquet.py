"""A local folder of image parquet files, laid out as the Hugging Face hub stores data sets."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sskd.data.columns import agreed_columns, read_column, read_labels
from sskd.data.encoded import Encoded, Published, Split, settle
from sskd.data.image_files import is_hidden, shortened
from sskd.data.labels import name_notes
from sskd.data.source import Source
from sskd.errors import UserError
from sskd.escaping import visible
from sskd.reading import Reading

CIFAR100 = Published((3, 32, 32), (0.5071, 0.4866, 0.4409), (0.2675, 0.2565, 0.2761))
_EXPECTED = "train-*.parquet or train.parquet, and likewise test (or validation), in the folder or in its data/"


@dataclass(frozen=True)
class RowNames:
    """Which row of which file an image is."""

    files: Sequence[tuple[str, int]]  # with their numbers of rows

    def find(self, i: int) -> tuple[int, int]:
        """The file's number, and the row in it, of a row counted through all files."""
        ends = list(accumulate(rows for _, rows in self.files))
        file = bisect_right(ends, i)
        return file, i - (ends[file - 1] if file else 0)

    def name(self, i: int) -> str:
        """Row and file."""
        file, row = self.find(i)
        return f"row {row} (from 0) of {self.files[file][0]}"


@dataclass(frozen=True)
class Rows:
    """Encoded images in columns of files: a `Reader`."""

    columns: Sequence[tuple[str, Any]]  # file, pyarrow column

    @property
    def names(self) -> RowNames:
        """See `Reader`."""
        return RowNames([(file, len(column)) for file, column in self.columns])

    def read(self, i: int) -> bytes | None:
        """The bytes in row `i`, counted through all files."""
        column, row = self.names.find(i)
        data: bytes | None = self.columns[column][1][row].as_py()
        return data

    def name(self, i: int) -> str:
        """Row and file."""
        return self.names.name(i)

    def identity(self, i: int) -> str:
        """File, row and length."""
        return f"{self.name(i)} {len(self.read(i) or b'')}"


def load(path: str | None, reading: Reading) -> Source:
    """Read train-*.parquet and test-*.parquet of the folder `path` into memory.

    Images are structs with encoded `bytes`, or plain binary. Columns, class names and splits are guessed unless
    `reading` names them. CIFAR-100 takes the published mean and std. Raises `UserError` that names the file (and row).
    """
    if path is None:
        raise UserError("The data set family parquet needs a folder: say parquet:PATH.")
    folder = Path(path).expanduser()
    name = visible(folder.resolve().name)
    train_files, test_files, unused = _find_splits(folder, reading)
    columns = agreed_columns([*train_files, *test_files], reading)
    # labels first: they are read in no time, and what is wrong with them should not wait for the images
    train_labels, test_labels, class_names = read_labels(train_files, test_files, columns, reading)
    train, test = (
        Split(Rows([(str(file), _encoded(file, columns.image, reading)) for file in files]), labels)
        for files, labels in ((train_files, train_labels), (test_files, test_labels))
    )
    note = f"{name}: images in column {columns.image}, labels in {columns.label}"
    note += f" (not {', '.join(columns.others)})" if columns.others else ""
    note += f"; tested on {test_files[0].name}"
    note += f"; not used: {shortened([file.name for file in unused])}." if unused else "."
    published = CIFAR100 if (columns.label, len(class_names)) == ("fine_label", 100) else None
    return settle(
        Encoded(name, class_names, train, test, notes=(note, *name_notes(class_names, "labels")), published=published),
        reading,
    )


def _encoded(file: Path, column: str, reading: Reading) -> Any:
    """The column's encoded images, as pyarrow binary."""
    encoded = read_column(file, column, reading)
    if pa.types.is_struct(encoded.type) and encoded.type.get_field_index("bytes") >= 0:
        encoded = pc.struct_field(encoded, "bytes")
    if not (pa.types.is_binary(encoded.type) or pa.types.is_large_binary(encoded.type)):
        raise UserError(
            f"The image column {column} of {file} holds {encoded.type}; expected encoded images "
            "(PNG, JPEG) as binary, or as a struct with a field `bytes`."
        )
    return encoded


def _find_splits(folder: Path, reading: Reading) -> tuple[list[Path], list[Path], list[Path]]:
    """The training files of a folder, the test files, and those that are neither, each in order of their names."""
    if not folder.is_dir():
        wrong = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {wrong}; expected a folder with {_EXPECTED}.")
    there = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
    found = [file for file in there if file.is_file() and not is_hidden(file.name)]
    if not found:
        raise UserError(f"There are no parquet files in {folder}; looked for {_EXPECTED}.")

    def split(pattern: str) -> list[Path]:
        return [file for file in found if re.fullmatch(rf"(?:{pattern})\.parquet", file.name, re.IGNORECASE)]

    asked = (reading.train, reading.test)
    train, test = (split(rf"{re.escape(name)}(-.*)?") if name else [] for name in asked)
    train = train or ([] if reading.train else split(r"train(ing)?(-.*)?"))
    test = test or ([] if reading.test else split(r"test(ing)?(-.*)?") or split(r"val(-.*)?|valid.*"))
    for kind, files in (("training", train), ("test", test)):
        if not files:
            names = ", ".join(file.name for file in found)
            raise UserError(f"{folder} has no {kind} split, only {names}; expected {_EXPECTED}.")
        _check_shards(files)
    if both := [file.name for file in train if file in test]:
        raise UserError(f"{folder}: {shortened(both)} would be training and test images. Name another test split.")
    return train, test, [file for file in found if file not in train and file not in test]


def _check_shards(files: Sequence[Path]) -> None:
    """Refuse a split whose file names count shards (-00000-of-00004) that are not each there once."""
    numbered = [(int(m[1]), int(m[2])) for file in files if (m := re.search(r"-(\d+)-of-(\d+)", file.name))]
    if numbered and sorted(numbered) != [(shard, len(files)) for shard in range(len(files))]:
        raise UserError(
            f"Not one complete set of shards in {files[0].parent}: {', '.join(f.name for f in files)}. "
            "Copy the missing ones, remove those of another set, or rename them (train-a.parquet ...)."
        )
