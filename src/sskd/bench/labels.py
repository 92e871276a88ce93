"""Few labels and wrong labels in a grid: what a cell's student sees, what its folder is called, how that is said."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from sskd.errors import UserError

Seen = Literal["all", "same"]


@dataclass(frozen=True)
class Labels:
    """Which training images a student sees, and how many of their labels are wrong.

    `same_steps`: as many steps as with all images, so 1 / fraction times the epochs. `teacher_saw`: with its head, all
    images with right labels, or the same images and labels as the student.
    """

    fraction: float = 1.0
    per_class: int | None = None
    noise: float = 0.0
    noise_kind: str = "symmetric"
    same_steps: bool = False
    teacher_saw: Seen = "all"

    @classmethod
    def of(cls, share: float | str, noise: float | str, same_steps: bool, teacher_saw: Seen) -> "Labels":
        """From a recipe's values; what makes no difference is as by default, so that one cell has one name.

        Raises:
            UserError: a value that is not understood or out of range; a number per class with the same steps.
        """
        images, wrong = _share(share), _noise(noise)
        if same_steps and "per_class" in images:
            raise UserError(
                f"same_steps is for shares of the images; with {share} it is not known how many they are of. "
                "Leave one of the two out."
            )
        few = images != {"fraction": 1.0}
        saw = teacher_saw if few or wrong else "all"
        return cls(**images, **wrong, same_steps=same_steps and few, teacher_saw=saw)

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> "Labels":
        """From the facts of a task."""
        return cls(**{one.name: facts[one.name] for one in fields(cls) if one.name in facts})

    @property
    def facts(self) -> dict[str, Any]:
        """For a task and its row: the share of the images always, the rest where it is not as usual."""
        usual = asdict(Labels())
        return {name: value for name, value in asdict(self).items() if name == "fraction" or value != usual[name]}

    @property
    def suffix(self) -> str:
        """Of the folder's name; nothing for all images with right labels."""
        parts = [f"fraction{self.fraction:g}"] if self.fraction != 1 else []
        parts += [f"{self.per_class}-per-class"] if self.per_class is not None else []
        kind = "noise" if self.noise_kind == "symmetric" else self.noise_kind
        parts += [f"{kind}{self.noise:g}"] if self.noise else []
        parts += ["same-steps"] if self.same_steps else []
        parts += ["teacher-same"] if self.teacher_saw == "same" else []
        return "".join(f"-{part}" for part in parts)

    @property
    def said(self) -> str:
        """For a heading; nothing for all images with right labels."""
        parts = list[str]()
        if self.per_class is not None:
            parts.append(f"{self.per_class} training images of each class")
        elif self.fraction != 1:
            parts.append(f"{percent(self.fraction)} of the training images")
        if self.noise:
            parts.append(f"{percent(self.noise)} {self.noise_kind} label noise")
        if self.same_steps:
            parts.append("as many steps as with all")
        if self.teacher_saw == "same":
            parts.append("a teacher that saw the same")
        return ", ".join(parts)

    @property
    def short(self) -> str:
        """For the head of a column."""
        images = f"{self.per_class} per class" if self.per_class is not None else percent(self.fraction)
        kind = "noise" if self.noise_kind == "symmetric" else self.noise_kind
        wrong = f"{percent(self.noise)} {kind}" if self.noise else ""
        return ", ".join(part for part in (images if images != "100 %" else "", wrong) if part)

    def arguments(self, training: Mapping[str, Any], epochs: int) -> dict[str, Any]:
        """The arguments of a training on these labels, where they are not as usual; `epochs`: where it does not say."""
        given: dict[str, Any] = {"per_class": self.per_class} if self.per_class is not None else {}
        if self.noise:
            given |= {"noise": self.noise, "noise_kind": self.noise_kind}
        if self.same_steps:
            times = {"epochs": training.get("epochs", epochs), "evaluate_every": training.get("evaluate_every", 1)}
            given |= {name: max(1, round(count / self.fraction)) for name, count in times.items()}
        return given


def percent(share: float) -> str:
    """A share for people: 0.25 as 25 %."""
    return f"{100 * share:.4g} %"


def _share(value: float | str) -> dict[str, Any]:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+) per class", value)) and int(found[1]):
        return {"per_class": int(found[1])}
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return {"fraction": float(value)}
    raise UserError(
        f"fractions are shares of the training images, above 0 and up to 1, or numbers of each class, such as "
        f"'4 per class'; got {value!r}."
    )


def _noise(value: float | str) -> dict[str, Any]:
    if isinstance(value, str) and (found := re.fullmatch(r"pair-flip (0?\.\d+|0)", value)):
        return {"noise": float(found[1]), "noise_kind": "pair-flip"} if float(found[1]) else {}
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
        return {"noise": float(value)} if value else {}
    raise UserError(
        f"noises are shares of wrong labels, from 0 to below 1, symmetric or such as 'pair-flip 0.3'; got {value!r}."
    )
