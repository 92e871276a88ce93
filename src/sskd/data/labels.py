"""What labels in files are worth: checked values, the classes that they name, and the order of the classes."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from sskd.errors import UserError

UNLABELLED = "-1 often marks images that were published without labels"
MISSING = ("none", "null", "nan", "n/a", "<na>")  # what programs write for a label that is not there
LONGEST = 1000  # characters of a class's name; captions are longer
DISTINCT = 0.75  # different texts for each image, above which they are hardly classes
NAMED = 5  # images that a message names before it only counts them


def label_text(value: Any) -> str:
    """A label of one class, as text.

    Raises:
        ValueError: it is none: null, a list, a number with a fraction, nothing at all.

    Example:
        >>> label_text(3), label_text(" cat ")
        ('3', 'cat')
    """
    if isinstance(value, str):
        text = value.strip()
        if not text:
            raise ValueError("an empty text")
        if len(text) > LONGEST:
            raise ValueError(f"a text of {len(text):,} characters")
        if _is_list(text):
            raise ValueError("a list")
        return text
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    shown = {type(None): "null", bool: "true or false", list: "a list", dict: "a mapping"}.get(type(value))
    raise ValueError(shown or f"{value!r}")


def _is_list(text: str) -> bool:
    """Whether a text is a list or mapping that was written as text; [unknown] is none, it may name a class."""
    if text[0] + text[-1] not in ("[]", "{}"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return "," in text
    return True


def refuse_labels(wrong: Sequence[tuple[str, str]], count: int, where: str, advice: str = "") -> None:
    """Stop at images whose label is no label of one class.

    Args:
        wrong: names of images, and what stands where their label should.
        count: of images in all.
        where: the file or data set.
        advice: what to do; else to name another label, as data in files can have.

    Raises:
        UserError: names some and counts all.
    """
    if wrong:
        listed = ", ".join(f"{name} ({what})" for name, what in wrong[:NAMED])
        more = f" and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else ""
        raise UserError(
            f"{where}: {len(wrong):,} of {count:,} images have no label of one class: {listed}{more}. Expected the "
            f"name of a class or its number from 0 ({UNLABELLED}). "
            + (advice or "Label them, leave them out, or name another label with --reading.label.")
        )


def names_of(labels: Sequence[str], where: str, stating: str) -> tuple[str, ...]:
    """The classes that training labels name: "0" to "C-1" where all are numbers, else the sorted texts.

    Args:
        labels: checked labels of the training images.
        where: the data set, for messages.
        stating: how the classes can be stated instead, for messages.

    Raises:
        UserError: negative numbers, more classes than images, one number written in two ways.
    """
    texts = set(labels)
    if not all(re.fullmatch(r"-?\d+", text, re.ASCII) for text in texts):
        return tuple(sorted(texts))
    if (lowest := min(map(int, texts), default=0)) < 0:
        raise UserError(f"{where} has the label {lowest}; labels number the classes from 0 ({UNLABELLED}).")
    if any(text != str(int(text)) for text in texts):  # 007: a name made of digits
        if len({int(text) for text in texts}) < len(texts):
            raise UserError(f"{where} writes the same class number with and without leading zeros. Write them alike.")
        return tuple(sorted(texts))
    return numbered_names(max((int(text) for text in texts), default=-1), len(labels), where, stating)


def numbered_names(last: int, images: int, where: str, stating: str) -> tuple[str, ...]:
    """The names "0" to `last`.

    Raises:
        UserError: there are fewer images than classes, so that the numbers are no numbers of classes.
    """
    if last >= images:  # also keeps a column of identifiers from becoming a billion classes
        raise UserError(
            f"{where} has labels that go up to {last}, but there are only {images} training images. Without class "
            f"names, labels must number the classes 0..C-1. {stating}".strip()
        )
    return tuple(map(str, range(last + 1)))


def refuse_distinct(labels: Sequence[str], where: str, name: str) -> None:
    """Stop at texts that are nearly all different, more than 3 for 4 images: these are captions or identifiers.

    Args:
        labels: of the training images, guessed to be their classes.
        where: the data set and where its labels stand.
        name: what `--reading.label` names if they are the classes after all.

    Raises:
        UserError: names two of them, and both ways out.
    """
    distinct = sorted(set(labels))
    if len(distinct) > DISTINCT * len(labels) > 2 * DISTINCT and not all(text.isdecimal() for text in distinct):
        raise UserError(
            f"{where}: {len(labels):,} training images have {len(distinct):,} different labels, such as "
            f"{distinct[0][:40]!r} and {distinct[1][:40]!r}: rather captions or identifiers than classes. "
            f"If they are the classes, say --reading.label {name}; else name another label with --reading.label."
        )


def class_numbers(values: Sequence[Any], names: Sequence[str], where: str, advice: str = "") -> Int64[Tensor, "N"]:
    """Labels that are class numbers, as a tensor.

    Raises:
        UserError: something else among them, named and counted.
    """
    wrong = [
        (f"row {row} from 0", repr(value)[:40])
        for row, value in enumerate(values)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(names)
    ]
    refuse_labels(wrong, len(values), where, advice)
    return torch.tensor(list(values), dtype=torch.int64)


def name_notes(names: Sequence[str], what: str) -> tuple[str, ...]:
    """Say where class names look like missing values or alike, and where numbers in them are out of their order."""
    missing = [repr(name) for name in names if name.lower() in MISSING]
    said = [f"{', '.join(missing)} among the {what} is taken as a class, not as a missing label."] if missing else []
    return (*said, *_alike_notes(names, what), *_order_notes(names, what))


def _alike_notes(names: Sequence[str], what: str) -> tuple[str, ...]:
    """Two spellings of a name are two classes."""
    spellings = defaultdict[str, list[str]](list)
    for name in names:
        plain = " ".join(name.split()).casefold()
        spellings[plain.lstrip("0") if plain.isdecimal() else plain].append(name)
    alike = [" and ".join(map(repr, same)) for same in spellings.values() if len(same) > 1]
    more = f" and {len(alike) - NAMED:,} more" if len(alike) > NAMED else ""
    taken = "are classes of their own, though they differ in case, spaces or leading zeros alone"
    return (f"Among the {what} {', '.join(alike[:NAMED])}{more} {taken}.",) if alike else ()


def _order_notes(names: Sequence[str], what: str) -> tuple[str, ...]:
    """Text order puts 10 before 2."""

    def natural(name: str) -> list[tuple[bool, int, str]]:
        return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]

    by_value = sorted(names, key=natural)
    if list(names) == by_value or list(names) != sorted(names):
        return ()
    i = next(i for i, (one, other) in enumerate(zip(names, by_value, strict=True)) if one != other)
    return (
        f"Classes are numbered in the text order of the {what}, so class {i} is {names[i]}, not {by_value[i]}. For "
        "weights whose classes are in the order of the numbers, name the classes in that order: --reading.classes.",
    )
