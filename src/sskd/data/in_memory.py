"""Labelled images that are handed over in Python: arrays, tensors, PyTorch and Hugging Face data sets."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from sskd.data import hub
from sskd.data.arrays import Array, Pixels, described, png, to_array, to_uint8
from sskd.data.encoded import Encoded, Split, made, settle
from sskd.data.images import Images, square
from sskd.data.labels import class_numbers, label_text, name_notes, numbered_names, refuse_labels
from sskd.data.layout import KINDS
from sskd.data.source import Indexed, Source
from sskd.errors import UserError, unknown
from sskd.reading import Reading

PREFIX = "memory"  # of the names of such data
TAKEN = (
    "a torch.utils.data.Dataset of (image, label), a datasets.Dataset, a pair (images, labels) of arrays or tensors, "
    'or {"train": ..., "test": ...} of these'
)
TRIED_TWICE = 8  # items that are read twice, to see whether they are drawn at random


@dataclass(frozen=True)
class EncodedInMemory:
    """Encoded images: a `Reader`."""

    images: Sequence[bytes]

    @property
    def names(self) -> "EncodedInMemory":
        """See `Reader`."""
        return self

    def read(self, i: int) -> bytes:
        """The encoded image."""
        return self.images[i]

    def name(self, i: int) -> str:
        """The item's number."""
        return f"item {i} (from 0)"

    def identity(self, i: int) -> str:
        """A hash of the content."""
        return hashlib.sha256(self.images[i]).hexdigest()


@dataclass(frozen=True)
class _Part:
    """Images and labels of a split, and the class names if the data set states them."""

    images: Sequence[Any] | Array
    labels: Sequence[Any]
    class_names: tuple[str, ...] | None = None


def in_memory(data: object, reading: Reading) -> tuple[str, Source]:
    """A name for the data, with a hash of its content, and the data.

    Args:
        data: see `TAKEN`. Images are PIL images, uint8 from 0 to 255 or floats from 0 to 1, of shape [N, H, W],
            [N, C, H, W] or [N, H, W, C] with 1 or 3 channels, before any normalisation; labels are class numbers from
            0, or names of classes.
        reading: `train`, `test`, `image` and `label` name splits of a mapping, and columns of a datasets.Dataset.

    Raises:
        UserError: something else, with what came; values or labels out of range; random transforms.
    """
    splits = _splits(data, reading)
    kind = type(splits["train"]).__name__ if not isinstance(splits["train"], list | tuple) else "arrays"
    if all(_is_hugging_face(part) for part in splits.values()):
        source = hub.handed_over(splits, kind, _without_splits(reading))
    else:
        for name in ("image", "label", "stream"):
            if getattr(reading, name):
                raise UserError(f"reading.{name} is for data sets with columns; got {kind}. Leave it out.")
        source = _source(kind, {name: _part(part, name) for name, part in splits.items()}, reading)
    digest = hashlib.sha256(repr(source.class_names).encode())
    for images in (source.train, source.validation, source.test):
        digest.update(images.fingerprint().encode() if images is not None else b"none")
    return f"{PREFIX}:{kind}-{digest.hexdigest()[:12]}", source


def _without_splits(reading: Reading) -> Reading:
    values = {**vars(reading), "train": None, "test": None}
    return Reading(**values)


def _is_hugging_face(part: object) -> bool:
    return type(part).__module__.partition(".")[0] == "datasets" and hasattr(part, "features")


def _splits(data: object, reading: Reading) -> dict[str, Any]:
    """The parts as train, validation and test."""
    if not isinstance(data, Mapping):
        if reading.train or reading.test:
            raise UserError(
                "reading.train and reading.test name splits; the data handed over has none. Leave them out."
            )
        return {"train": data}
    found = dict[str, str]()
    for kind, asked in (("train", reading.train), ("test", reading.test), ("validation", None)):
        named = [asked] if asked else [key for key in data if KINDS.get(str(key).lower()) == kind]
        named = [key for key in named if asked or key not in found.values()]
        if asked and asked not in data:
            raise unknown("split of the data", asked, map(str, data))
        if len(named) > 1:
            raise UserError(f"The data has several {kind} splits: {', '.join(named)}. Leave all but one out.")
        found |= {kind: named[0]} if named else {}
    if "train" not in found:
        keys = ", ".join(map(str, data)) or "nothing"
        raise UserError(f'The data handed over has no split named "train", only {keys}. Expected {TAKEN}.')
    if len({id(data[key]) for key in found.values()}) < len(found):
        raise UserError(
            f"{' and '.join(found.values())} are the same images. Hand over others, or leave all but one out."
        )
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    return {kind: data[key] for kind, key in found.items()}


def _part(part: Any, name: str) -> _Part:
    """One split of what was handed over.

    Raises:
        UserError: says what came, and what is taken.
    """
    if isinstance(part, TensorDataset):
        if len(part.tensors) != 2:
            raise UserError(
                f"The {name} split is a TensorDataset of {len(part.tensors)} tensors; expected two, (image, label). "
                "Hand over TensorDataset(images, labels)."
            )
        part = part.tensors
    if isinstance(part, tuple) and any(isinstance(one, Dataset) for one in part):
        raise UserError('A tuple of data sets was handed over. Say which is which: {"train": ..., "test": ...}.')
    if _is_pair(part):
        images, labels = (to_array(one) if _is_array(one) else one for one in part)
        if _is_array(labels) and labels.ndim != 1:
            raise UserError(
                f"The labels of the {name} split have the shape {list(labels.shape)}; expected [N], the number of a "
                "class for each image. Of one-hot rows take labels.argmax(1)."
            )
        if len(images) != len(labels):
            raise UserError(f"The {name} split has {len(images)} images, but {len(labels)} labels.")
        return _Part(images, list(labels))
    if isinstance(part, DataLoader):
        raise UserError(
            "A DataLoader was handed over; sskd makes batches itself. Hand over its data set: loader.dataset."
        )
    if isinstance(part, IterableDataset) or not (isinstance(part, Dataset | list) and hasattr(part, "__len__")):
        raise UserError(f"As data came {described(part)}; expected a folder or name as text, {TAKEN}.")
    return _read(part, name)


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _is_pair(part: object) -> bool:
    """Images and labels, not two samples."""
    if not isinstance(part, tuple | list) or len(part) != 2:
        return False
    images, labels = part
    return (isinstance(part, tuple) and not isinstance(images, tuple)) or (_is_array(images) and _is_array(labels))


def _read(dataset: Any, name: str) -> _Part:
    """All items of a data set, once."""
    images, labels = [], []
    for i in range(len(dataset)):
        item = _item(dataset, i, name)
        images.append(item[0] if isinstance(item[0], Image.Image) else to_array(item[0]))
        labels.append(item[1])
    for i in range(0, len(dataset), max(len(dataset) // TRIED_TWICE, 1)):
        first, again = images[i], _item(dataset, i, name)[0]
        if not np.array_equal(
            np.asarray(first), np.asarray(again) if isinstance(again, Image.Image) else to_array(again)
        ):
            raise UserError(
                f"Item {i} of the {name} split is another image each time it is read: the data set has random "
                "transforms. Images are read once, and sskd flips and crops them itself; leave the transforms out."
            )
    return _Part(images, labels, _class_names(dataset))


def _item(dataset: Any, i: int, name: str) -> Sequence[Any]:
    """An image and its label.

    Raises:
        UserError: the data set's own error, with the item's number; an item that is something else.
    """
    try:
        item = dataset[i]
    except Exception as error:  # whatever the user's code runs into
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise UserError(
            f"Item {i} (from 0) of the {name} split cannot be read: {type(dataset).__name__}[{i}] fails with {reason}. "
            "Correct the data set, or leave the item out."
        ) from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        many = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise UserError(
            f"Item {i} of the {name} split is {described(item)}{many}; expected (image, label). Other items need a "
            "data set of your own around it that returns these two."
        )
    return item


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    """What torchvision's data sets call `classes`, also of a part of one."""
    stated = getattr(dataset, "classes", None)
    if isinstance(stated, list | tuple) and stated and all(isinstance(one, str) for one in stated):
        return tuple(stated)
    inner = getattr(dataset, "dataset", None)
    return None if inner is None else _class_names(inner)


def _source(kind: str, parts: dict[str, _Part], reading: Reading) -> Source:
    labels = {name: _labels(part, name) for name, part in parts.items()}
    names = _names(parts["train"], labels["train"])
    if len({type(ones[0]) for ones in labels.values() if ones}) > 1:
        raise UserError("One split has numbers as labels, another texts. Hand over one or the other.")
    texts = {text: i for i, text in enumerate(names)}
    advice = "Hand over images with labels alone."
    numbers = {
        name: class_numbers([texts.get(one, one) if isinstance(one, str) else one for one in ones], names, name, advice)
        for name, ones in labels.items()
    }
    pixels = {name: to_uint8(part.images, name) for name, part in parts.items()}
    notes = (f"{len(labels['train']):,} images were handed over as {kind}.", *name_notes(names, "labels"))
    if len({one.shape[1:] for images in pixels.values() for one in images}) > 1:
        splits = {name: Split(EncodedInMemory([png(one) for one in pixels[name]]), numbers[name]) for name in parts}
        encoded = Encoded(kind, names, splits["train"], splits.get("test"), splits.get("validation"), notes)
        return settle(encoded, reading)
    channels = max(len(images[0]) for images in pixels.values())
    sets: dict[str, Indexed] = {}
    for name, images in pixels.items():
        whole = images if isinstance(images, Tensor) else torch.stack([_expanded(one, channels) for one in images])
        whole = whole.expand(-1, channels, -1, -1).contiguous()
        sets[name] = square(Images(whole, numbers[name]), reading.square, kind)
    return made(kind, names, sets, reading, notes)


def _expanded(pixels: Pixels, channels: int) -> Pixels:
    return pixels.expand(channels, -1, -1)


def _labels(part: _Part, name: str) -> list[int] | list[str]:
    """Numbers or texts, all of one kind."""
    plain = [one.item() if hasattr(one, "item") and getattr(one, "ndim", 0) == 0 else one for one in part.labels]
    wrong = []
    for i, value in enumerate(plain):
        try:
            label_text(value)
        except ValueError as error:
            wrong.append((f"item {i} from 0", str(error)))
    refuse_labels(wrong, len(plain), f"The {name} split", "Hand over images with labels alone, numbers as integers.")
    if len({isinstance(one, str) for one in plain}) > 1:
        raise UserError(f"The {name} split has both numbers and texts as labels. Hand over one or the other.")
    return [one.strip() for one in plain] if plain and isinstance(plain[0], str) else plain


def _names(part: _Part, labels: list[int] | list[str]) -> tuple[str, ...]:
    if part.class_names is not None:
        return part.class_names
    if labels and isinstance(labels[0], str):
        return tuple(sorted({str(one) for one in labels}))
    return numbered_names(max(map(int, labels), default=-1), len(labels), "The data handed over", "Hand over texts.")
