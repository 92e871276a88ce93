"""Which taps of a student are compared with which of a teacher, and whether their shapes allow it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from sskd.errors import UserError, unknown
from sskd.methods.plan import Pair
from sskd.models.taps import Shapes

N = TypeVar("N", int, float)

Aligned = tuple[tuple[str, str], ...]
"""Taps to compare: (the student's, the teacher's)."""


@dataclass(frozen=True)
class Scaled:
    """The default of an option that is a number of epochs: the published one, as a share of the student's schedule.

    `published` epochs beside a student's `of`; a shorter or longer schedule has a part of it that is as large.
    """

    published: int
    of: int = 240

    def at(self, epochs: int) -> int:
        """The number beside a student's `epochs`, 1 or more."""
        return max(1, round(self.published * epochs / self.of))

    def __str__(self) -> str:
        return f"{self.published} of {self.of} epochs"


def scaled(option: str, value: N | Scaled, epochs: int) -> tuple[N | int, tuple[str, ...]]:
    """An option's number of epochs beside a student's `epochs`; and a note for the plan, where it was scaled."""
    if not isinstance(value, Scaled):
        return value, ()
    length = value.at(epochs)
    if length == value.published:
        return length, ()
    published = f"the published {value.published} of {value.of} beside the student's {epochs}"
    many = f"{length} epoch{'s' if length > 1 else ''}"
    return length, (f"{option}: {many}, {published} (--options.{option} N for another number).",)


def stages_of(shapes: Shapes, end: str = "") -> tuple[str, ...]:
    """The stages of a network in order: "stage1", "stage2" ..., or their `.pre`."""
    return tuple(sorted((name for name in shapes if re.fullmatch(rf"stage\d+{re.escape(end)}", name)), key=_number))


def align(
    pair: Pair,
    method: str,
    stages: tuple[str, ...] | None,
    end: str = "",
    known: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Aligned:
    """Every stage of the student with the teacher's of the same number, or what the user has named.

    `stages`: "stage2" for the same on both sides, "stage2:stage3" for the student's second and the teacher's third.
    `known`: the taps of a side that stand in place of its stages.

    Raises:
        UserError: unequal numbers of stages and none named; a stage that is not there; shapes that are not maps.
    """
    if stages is None:
        sides = _sides(pair)
        student, teacher = (
            tuple(tap for tap in known.get(side, ()) if tap in shapes) or stages_of(shapes, end)
            for side, shapes in sides.items()
        )
        if not student or not teacher:
            raise _none(pair, method, end)
        if len(student) != len(teacher):
            raise UserError(
                f"{method} compares stage by stage. The student has {_listed(sides['student'], student)}; the teacher "
                f"has {_listed(sides['teacher'], teacher)}. Say which belong together, for example "
                f"--options.stages '{_suggested(sides, student, teacher)}'."
            )
        found = tuple(zip(student, teacher, strict=True))
    else:
        found = tuple(_parsed(name, end) for name in stages)
    if not found:
        raise UserError(f"{method} needs at least one stage; got an empty list.")
    for side, names in zip(_sides(pair), zip(*found, strict=True), strict=True):
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"The {side}'s {twice[0]} is named twice in --options.stages; name each stage once.")
    for student_tap, teacher_tap in found:
        need_map(pair, method, "student", student_tap)
        need_map(pair, method, "teacher", teacher_tap)
    return found


def align_one(pair: Pair, method: str, stage: str) -> tuple[str, str]:
    """One pair of stages: as named, or for "last" the last of each network.

    Raises:
        UserError: a stage that is not there, or whose output is not a map.
    """
    if stage != "last":
        return align(pair, method, (stage,))[0]
    student, teacher = (stages_of(shapes)[-1:] for shapes in _sides(pair).values())
    if not student or not teacher:
        raise _none(pair, method, "")
    return align(pair, method, (f"{student[0]}:{teacher[0]}",))[0]


def need_map(pair: Pair, method: str, side: str, tap: str) -> tuple[int, int, int]:
    """The shape of a tap whose values are maps, [C, H, W].

    Raises:
        UserError: it is not there, or it is no map.
    """
    shapes = _sides(pair)[side]
    if tap not in shapes:
        why = pair.left_out.get(side, {}).get(tap)
        if why:
            raise UserError(f"{method} reads {tap} of the {side}, which cannot be read: {why}")
        missing = unknown(f"tap of the {side} (asked for by {method})", tap, shapes)
        raise UserError(f'{missing} Name stages that are there, or a module: --{side}_taps \'{{"{tap}": "MODULE"}}\'.')
    shape = shapes[tap]
    if len(shape) != 3:
        what = "tokens" if len(shape) == 2 else "numbers"
        raise UserError(
            f"{method} compares feature maps [channels, height, width]; {tap} of the {side} is {what} of shape "
            f"{list(shape)}. Use a method on predictions or pooled features (kd, dist, rkd, crd, sskd), or name a "
            f'module that gives maps: --{side}_taps \'{{"{tap}": "MODULE"}}\'.'
        )
    return (shape[0], shape[1], shape[2])


def need_neighbours(pair: Pair, method: str, aligned: Aligned, compared: str) -> None:
    """Refuse what a method on neighbouring maps and their channels cannot compare.

    Raises:
        UserError: maps of unequal channels, or fewer than two.
    """
    for s, t in aligned:
        ours, theirs = need_map(pair, method, "student", s), need_map(pair, method, "teacher", t)
        if ours[0] != theirs[0]:
            raise UserError(
                f"{method} compares {compared}, so both networks need as many: {s} of the student is {list(ours)} "
                f"(channels, height, width), {t} of the teacher {list(theirs)}. Choose networks of one width (such as "
                "cifar_resnet56 and cifar_resnet20), name stages that agree (--options.stages), or use at, sp or vid."
            )
    if len(aligned) < 2:
        raise UserError(
            f"{method} compares how maps follow each other and needs two or more; got {aligned[0][0]} alone. "
            'Name another: --options.stages \'["stage1", "stage2"]\'.'
        )


def need_vector(pair: Pair, method: str, side: str) -> int:
    """The width of the input of a network's linear classifier.

    Raises:
        UserError: the network has none.
    """
    pooled = _sides(pair)[side].get("pooled")
    if pooled is None or len(pooled) != 1:
        why = pair.left_out.get(side, {}).get("pooled", "none was found in this network.")
        raise UserError(
            f"{method} reads the input of the {side}'s linear classifier; {why} "
            f"Use a network that ends in a linear layer, or name its module: --{side}_taps.pooled MODULE:in."
        )
    return int(pooled[0])


def _sides(pair: Pair) -> dict[str, Shapes]:
    return {"student": pair.student, "teacher": pair.teacher or {}}


def _number(stage: str) -> int:
    return int(re.sub(r"\D", "", stage))


def _parsed(name: str, end: str) -> tuple[str, str]:
    student, _, teacher = name.partition(":")
    return student + end, (teacher or student) + end


def _listed(shapes: Shapes, names: tuple[str, ...]) -> str:
    return f"{len(names)} ({', '.join(f'{name} {list(shapes[name])}' for name in names)})"


def _suggested(sides: dict[str, Shapes], student: tuple[str, ...], teacher: tuple[str, ...]) -> str:
    """Each stage of the shallower network with the last of the other's that lies as deep, the last with the last."""
    few, many = sorted((student, teacher), key=len)
    pairs = [(name, many[round((i + 1) * len(many) / len(few)) - 1]) for i, name in enumerate(few)]
    ordered = [one if few is student else one[::-1] for one in pairs]
    return "[" + ", ".join(f'"{_plain(a)}:{_plain(b)}"' for a, b in ordered) + "]"


def _plain(stage: str) -> str:
    return stage.partition(".")[0]


def _none(pair: Pair, method: str, end: str) -> UserError:
    for side, shapes in _sides(pair).items():
        if stages_of(shapes, end):
            continue
        reasons = [text for name, text in pair.left_out.get(side, {}).items() if name.endswith(end or name)]
        why = f" ({reasons[0]})" if reasons else ""
        what = "values before the activations of the stages" if end else "stages"
        return UserError(
            f"{method} reads {what}; none are known of the {side}{why}. Name its modules, for example "
            f'--{side}_taps \'{{"stage1{end}": "layer1{".1.act2:in" if end else ""}"}}\', or choose another method.'
        )
    raise AssertionError("both sides have stages")
