"""Stratified parts of a training set: a validation split, a fraction of the labels, a number of each class.

All are drawn from a generator of their own, so the same labels and seed give the same images on every
machine and whatever else draws random numbers.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from sskd.errors import UserError

_NAMED = 10  # classes that a message lists before it only counts them


def validation_split(
    labels: Int64[Tensor, "N"], size: float, seed: int, class_names: Sequence[str]
) -> tuple[Int64[Tensor, "T"], Int64[Tensor, "V"]]:
    """Sorted positions of the images to train on, and of those held out for validation.

    `size` below 1 is a fraction of the images, from 1 on a number of images; 0 holds nothing out. Each class
    gives its exact share, rounded up or down so that the total is `size`. Raises `UserError` if `size` makes
    no sense, or if a class would be left without an image on either side.
    """
    if not 0 <= size < len(labels):
        raise UserError(
            f"--validation is {size}; expected a fraction from 0 to below 1, or a number of images below "
            f"{len(labels)}, which is all there are."
        )
    if size >= 1 and size != int(size):
        raise UserError(f"--validation is {size}; from 1 on it is a number of images, which must be whole.")
    if size == 0:
        return torch.arange(len(labels)), torch.arange(0)
    total = int(size) if size >= 1 else round(size * len(labels))
    counts = torch.bincount(labels, minlength=len(class_names))
    held_out = allocate(counts, total)
    if (missing := held_out == 0).any():
        raise UserError(
            f"--validation {size} holds out {total} images; these classes get no validation image: "
            f"{describe_classes(counts, class_names, missing)}. "
            "Hold out more images, say --validation 0, or bring more images of these classes."
        )
    if (emptied := held_out == counts).any():
        raise UserError(
            f"--validation {size} holds out {total} images; these classes keep no training image: "
            f"{describe_classes(counts, class_names, emptied)}. "
            "Hold out fewer images, say --validation 0, or bring more images of these classes."
        )
    validation = draw(labels, held_out, seed)
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[validation] = False
    return kept.nonzero().flatten(), validation


def label_fraction(
    labels: Int64[Tensor, "N"], fraction: float, seed: int, class_names: Sequence[str]
) -> Int64[Tensor, "K"]:
    """Sorted positions of `fraction` of the images, each class giving its share; 1 is every image, in order.

    Raises `UserError` if `fraction` is not in (0, 1], or if a class would be left without an image.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"The fraction of labels is {fraction}; expected more than 0 and at most 1.")
    counts = torch.bincount(labels, minlength=len(class_names))
    kept = allocate(counts, round(fraction * len(labels)))
    if (missing := kept == 0).any():
        raise UserError(
            f"A label fraction of {fraction} leaves these classes without an image: "
            f"{describe_classes(counts, class_names, missing)}. "
            "Take a larger fraction, or bring more images of these classes."
        )
    return draw(labels, kept, seed)


def label_count(
    labels: Int64[Tensor, "N"], per_class: int, seed: int, class_names: Sequence[str]
) -> Int64[Tensor, "K"]:
    """Sorted positions of `per_class` images of each class.

    Raises `UserError` if there are to be none, or if a class has fewer.
    """
    if per_class < 1:
        raise UserError(f"per_class is {per_class}; expected the number of images of each class, at least 1.")
    counts = torch.bincount(labels, minlength=len(class_names))
    if (short := counts < per_class).any():
        raise UserError(
            f"--per_class {per_class} is more than these classes have: {describe_classes(counts, class_names, short)}. "
            "Take fewer, hold out fewer for validation, or bring more images of these classes."
        )
    return draw(labels, torch.full_like(counts, per_class), seed)


def describe_classes(
    counts: Int64[Tensor, "classes"], class_names: Sequence[str], chosen: Bool[Tensor, "classes"]
) -> str:
    """The chosen classes with their numbers of images, for a message: `'cat' (3 images), 'dog' (1 image)`."""
    classes = chosen.nonzero().flatten().tolist()
    described = [
        f"{class_names[c]!r} ({int(counts[c])} image{'' if counts[c] == 1 else 's'})" for c in classes[:_NAMED]
    ]
    more = [f"and {len(classes) - _NAMED} more"] if len(classes) > _NAMED else []
    return ", ".join(described + more)


def allocate(counts: Int64[Tensor, "classes"], total: int) -> Int64[Tensor, "classes"]:
    """How many of `total` images each class gives, by largest remainder; in whole numbers, so exact."""
    shares = counts * total
    size = int(counts.sum())
    given = shares // size
    left = total - int(given.sum())
    # stable: among equal remainders the lower class number comes first, on every machine
    given[(shares % size).argsort(descending=True, stable=True)[:left]] += 1
    return given


def draw(labels: Int64[Tensor, "N"], given: Int64[Tensor, "classes"], seed: int) -> Int64[Tensor, "K"]:
    """Sorted positions of `given[c]` images of each class c, drawn without replacement."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sorted_labels = labels[by_class]
    counts = torch.bincount(labels, minlength=len(given))
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[sorted_labels]  # within the class
    return by_class[rank < given[sorted_labels]].sort().values
