"""Bounds of the values that users give, with one wording for all."""

import math
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Hashable, Iterable
from typing import Literal

from sskd.errors import UserError

LARGEST = sys.float_info.max
LARGEST_SIDE = 10_000  # pixels, the longest side of an image that a network is given

Ends = Literal["[]", "[)", "(]", "()"]


def need_between(name: str, value: float | None, low: float, high: float = LARGEST, ends: Ends = "[]") -> None:
    """Refuse a number outside of an interval; None passes, not-a-number never does.

    Args:
        name: of the option, to begin the message.
        value: what was given.
        low: the lower bound.
        high: the upper bound; any finite number where it is not given.
        ends: which of the two bounds are allowed themselves, as intervals are written: [) is from low to below high.

    Raises:
        UserError: what is allowed, what came.
    """
    if value is None:
        return
    if not isinstance(value, int | float):
        raise UserError(f"{name} must be a number; got {value!r}.")
    above = value >= low if ends[0] == "[" else value > low
    below = value <= high if ends[1] == "]" else value < high
    if not (above and below):
        raise UserError(f"{name} must {_said(value, low, high, ends)}; got {value}.")


def _said(value: float, low: float, high: float, ends: Ends) -> str:
    if math.isnan(value) or (math.isinf(value) and high == LARGEST):
        return "be a finite number"
    if high >= LARGEST:
        return f"be above {low:g}" if ends[0] == "(" else "not be negative" if low == 0 else f"be at least {low:g}"
    if ends[0] == "(":
        return f"be above {low:g} and {'at most' if ends[1] == ']' else 'below'} {high:g}"
    return f"be from {low:g} to {'' if ends[1] == ']' else 'below '}{high:g}"


def need_bool(name: str, value: object) -> None:
    """Refuse what only looks like true or false: the text "false" would count as true.

    Raises:
        UserError: names the option, and what came.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false; got {value!r:.80}.")


def need_device(name: str) -> None:
    """Refuse a device that no training runs on, whether or not this machine has one.

    Raises:
        UserError: names the kinds.
    """
    if not re.fullmatch(r"auto|(cpu|cuda)(:\d+)?", name):
        raise UserError(f"The device {name!r} is not one that training runs on: auto, cpu, cuda or cuda:N.")


def need_few(name: str, value: int | None, low: int) -> None:
    """Refuse more threads or processes than this machine can start and make any use of.

    Raises:
        UserError: fewer than `low`, or more than 8 for each core and 256.
    """
    need_between(name, value, low)
    cores = os.cpu_count() or 1
    if value is not None and value > (most := max(256, 8 * cores)):
        raise UserError(f"{name} must be at most {most} on this machine, which has {cores} cores; got {value}.")


def need_some(name: str, values: Collection[Hashable], empty: str = "") -> None:
    """Refuse an empty list, and one that holds something twice.

    Args:
        name: of the option, to begin the message.
        values: what was given.
        empty: what to add about a list that is empty.

    Raises:
        UserError: it is empty; or what it holds twice.
    """
    if not values:
        raise UserError(f"{name} must be a list of one or more{empty}.")
    need_once(name, values)


def need_once(name: str, values: Iterable[Hashable]) -> None:
    """Refuse a list that holds something twice.

    Raises:
        UserError: what it holds twice.
    """
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise UserError(f"{name} has {', '.join(map(repr, twice))} more than once. Give each once.")


def refuse_empty(**texts: object) -> None:
    """Refuse empty text, which a shell makes of a variable that is not set; what is no text passes.

    Raises:
        UserError: names the option.
    """
    for name, text in texts.items():
        if isinstance(text, str) and not text.strip():
            raise UserError(f"{name} is empty. Give it a value, or leave it out.")
