"""The files of the golden vectors, and what is made of their arrays."""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sskd.data.source import DataInfo
from sskd.views.pretext import Batch

METHOD_KEY = re.compile(r"(.+?)\.(?:loss\d*$|(?:grad|param|in|out)\.)")

Array = NDArray[Any]
Results = Mapping[str, Tensor | tuple[int, ...]]
"""Our values by the key under which the file stores the published ones."""
Family = Callable[["Golden"], Iterator[tuple[str, Callable[[], Results]]]]
"""The cases that a file holds and we can compute: name and computation."""


def first_line(error: Exception) -> str:
    """What an error says, short."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


class Malformed(Exception):
    """A file that does not keep to its format."""


class Golden:
    """The arrays of one file. Remembers which were looked at, so that the others can be listed."""

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as stored:
                self.arrays: dict[str, Array] = {key: stored[key] for key in stored.files}
        except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise Malformed(f"cannot be read as .npz without pickles: {first_line(error)}") from error
        self.used: set[str] = set()

    def array(self, key: str) -> Array:
        """A stored array."""
        if key not in self.arrays:
            raise Malformed(f"has no array {key!r}")
        self.used.add(key)
        return self.arrays[key]

    def tensor(self, key: str) -> Tensor:
        """A stored array of numbers, as float64 or int64."""
        value = self.array(key)
        if value.dtype.kind not in "fiub":
            raise Malformed(f"{key} holds {value.dtype}, not numbers")
        return torch.from_numpy(value.astype(np.float64 if value.dtype.kind == "f" else np.int64))

    def number(self, key: str) -> float:
        """A stored scalar."""
        return float(self.tensor(key).item())


def rnd(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def facts(classes: int, labels: Tensor, shape: tuple[int, int, int]) -> DataInfo:
    """What a method is told of the data."""
    names, zeros, ones = tuple(map(str, range(classes))), (0.0,) * shape[0], (1.0,) * shape[0]
    return DataInfo("golden", len(labels), names, labels, zeros, ones, shape)


def batch_of(images: Tensor, labels: Tensor) -> Batch:
    """A batch of given views [B, V, ...]."""
    index = torch.arange(len(images))
    return Batch(images, labels, index, torch.zeros(images.shape[:2], dtype=torch.int64), torch.tensor(0.0), {})
