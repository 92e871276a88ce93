"""From encoded images, as most families deliver them, to a source: decoded where they are small and of one size."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from sskd.data.decode import header
from sskd.data.images import Images, channel_statistics, square
from sskd.data.pictures import Pictures, Reader, unreadable, without
from sskd.data.source import Indexed, Source
from sskd.errors import UserError
from sskd.reading import Reading

IN_MEMORY = 128  # pixels: images of one size up to this side are decoded when they are read
LOOKED_AT = 2000  # images of a split whose headers tell its sizes and modes, evenly spaced
# of ImageNet, with which most networks for photographs are trained; and its luminance
PHOTOGRAPHS = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}


@dataclass(frozen=True)
class Published:
    """The mean and std that networks for a data set are published with, and the shape by which it is known."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Split:
    """Encoded images with their labels."""

    reader: Reader
    labels: Int64[Tensor, "N"]


@dataclass(frozen=True)
class Encoded:
    """A data set as a family finds it. Without a test split one is cut off."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split | None
    validation: Split | None = None
    notes: tuple[str, ...] = ()
    published: Published | None = None


def settle(encoded: Encoded, reading: Reading) -> Source:
    """Look at the images, decode those that are small and of one size, leave out what cannot be read if asked.

    Raises:
        UserError: images that cannot be decoded, and nobody said to skip them; splits without images.
    """
    found = {"train": encoded.train, "validation": encoded.validation, "test": encoded.test}
    splits = {name: split for name, split in found.items() if split is not None}
    for name, split in splits.items():
        if not len(split.labels):
            raise UserError(f"The {name} split of {encoded.name} holds no images.")
    looks = [look for split in splits.values() for look in _look(split, reading.max_pixels)]
    channels = 1 if looks and all(grey for _, grey in looks) else 3
    sets: dict[str, Indexed] = {
        name: Pictures(split.reader, torch.arange(len(split.labels)), split.labels, channels, reading.max_pixels)
        for name, split in splits.items()
    }
    notes = encoded.notes
    if reading.unreadable == "skip":
        sets, notes = _skipped(sets, notes)
    sizes = {size for size, _ in looks}
    if len(sizes) == 1 and max(next(iter(sizes))) <= IN_MEMORY:
        sets = _decoded(sets, next(iter(sizes)), reading, encoded.name)
    return made(encoded.name, encoded.class_names, sets, reading, notes, encoded.published)


def made(
    name: str,
    class_names: tuple[str, ...],
    sets: dict[str, Indexed],
    reading: Reading,
    notes: tuple[str, ...],
    published: Published | None = None,
) -> Source:
    """A source of sets of images, by split; without a test split one is cut off."""
    if "test" not in sets:
        sets, notes = _with_test(sets, class_names, reading, notes)
    train = sets["train"]
    if isinstance(train, Images):
        known = published is not None and tuple(train.pixels.shape[1:]) == published.shape
        mean, std = (published.mean, published.std) if known and published else channel_statistics(train.pixels)
    else:
        known, (mean, std) = published is not None, PHOTOGRAPHS[train.channels]
    return Source(name, class_names, train, sets["test"], mean, std, sets.get("validation"), notes, known)


def _look(split: Split, max_pixels: int) -> list[tuple[tuple[int, int], bool]]:
    """Size and greyness of images, from their headers: of all, or of some that are evenly spaced."""
    count = len(split.labels)
    chosen = range(0, count, -(-count // LOOKED_AT)) if count > 50 * LOOKED_AT else range(count)

    def look(i: int) -> tuple[tuple[int, int], bool] | None:
        try:
            return header(split.reader.read(i), max_pixels)
        except Exception:  # told when it is to be decoded
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [found for found in pool.map(look, chosen) if found is not None]


def _skipped(sets: dict[str, Indexed], notes: tuple[str, ...]) -> tuple[dict[str, Indexed], tuple[str, ...]]:
    kept: dict[str, Indexed] = {}
    for name, images in sets.items():
        assert isinstance(images, Pictures)
        refused = unreadable(images)
        kept[name] = without(images, refused) if refused else images
        if refused:
            listed = "; ".join(list(refused.values())[:3])
            notes = (*notes, f"Skipped {len(refused)} of {len(images)} {name} images: {listed}.")
    return kept, notes


def _decoded(sets: dict[str, Indexed], size: tuple[int, int], reading: Reading, name: str) -> dict[str, Indexed]:
    decoded: dict[str, Indexed] = {}
    for split, images in sets.items():
        assert isinstance(images, Pictures)
        decoded[split] = square(images.as_they_are(*size), reading.square, name)
    return decoded


def _with_test(
    sets: dict[str, Indexed], names: Sequence[str], reading: Reading, notes: tuple[str, ...]
) -> tuple[dict[str, Indexed], tuple[str, ...]]:
    """Cut a test split off. Classes with one image keep it for training."""
    images = sets["train"]
    train, test = spared(images.labels, reading.test_share, len(names))
    if not len(test):
        raise UserError(
            "There is no test split, and no class has a second image that could be spared for one. "
            "Bring more images, or a folder (or split) of test images."
        )
    note = f"No test split there: {len(test)} of {len(images)} images, stratified, were cut off for testing."
    return {**sets, "train": images.take(train), "test": images.take(test)}, (*notes, note)


def spared(labels: Int64[Tensor, "N"], share: float, classes: int) -> tuple[Int64[Tensor, "T"], Int64[Tensor, "K"]]:
    """Sorted positions kept and cut off. Each class gives about its share, at least 1 and never its last image."""
    counts = torch.bincount(labels, minlength=classes)
    given = (counts * share).round().long().clamp(min=1).minimum((counts - 1).clamp(min=0))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    taken = torch.zeros(len(labels), dtype=torch.bool)
    left = given.tolist()
    for i in order.tolist():
        if left[labels[i]] > 0:
            left[labels[i]] -= 1
            taken[i] = True
    return (~taken).nonzero().flatten(), taken.nonzero().flatten()
