"""Pieces that several methods are made of."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.methods.logits import KDLoss, need_positive
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Stage, Term
from sskd.methods.stages import Aligned
from sskd.views.pretext import Batch, Plain

M = TypeVar("M", bound=nn.Module)


class CrossEntropy(Term):
    """Cross-entropy of the student's predictions on view 0 with the labels."""

    student_taps = ("logits",)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the batch."""
        return F.cross_entropy(student["logits"][:, 0], batch.labels)


class LossTerm(Term):
    """A term that gives a loss of `sskd.losses` the values at its taps, of view 0.

    `loss(student, teacher)` takes one tensor of each side, or a list of each where `aligned` is a sequence of pairs.
    What the loss owns is trained with the student.
    """

    def __init__(self, loss: nn.Module, aligned: Aligned | tuple[str, str], relates: bool = False) -> None:
        super().__init__()
        self.loss = loss
        self.listed = not isinstance(aligned[0], str)
        pairs = aligned if self.listed else (aligned,)
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(*pairs, strict=True))
        self.relates = relates
        self.register_load_state_dict_pre_hook(_loss_keys)  # type: ignore[no-untyped-call]

    def values(self, student: Outputs, teacher: Outputs) -> tuple[Any, Any]:
        """What the loss is given of each side."""
        sides = ((student, self.student_taps), (teacher, self.teacher_taps))
        s, t = ([outputs[tap][:, 0] for tap in taps] for outputs, taps in sides)
        return (s, t) if self.listed else (s[0], t[0])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """The loss, of values [B, V, ...]."""
        loss: Tensor = self.loss(*self.values(student, teacher))
        return loss


def warmed_up(loss: Float[Tensor, ""], epoch: Float[Tensor, ""], epochs: float) -> Float[Tensor, ""]:
    """A loss times a factor that rises linearly to 1 within the first `epochs`; 0 epochs leave it as it is."""
    return loss * ((epoch + 1) / epochs).clamp(max=1) if epochs else loss


class WarmedUp(LossTerm):
    """A loss that counts little at first: see `warmed_up`."""

    def __init__(self, loss: nn.Module, aligned: Aligned | tuple[str, str], warm_up: float) -> None:
        super().__init__(loss, aligned)
        self.warm_up = warm_up

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """The loss, of values [B, V, ...]."""
        return warmed_up(super().forward(student, teacher, batch), batch.epoch, self.warm_up)


def _loss_keys(term: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Checkpoints of version 0.1 have what a loss owns without `loss.` before it."""
    own = term.state_dict().keys()
    for key in [key for key in state if key.startswith(prefix) and key.removeprefix(prefix) not in own]:
        if f"loss.{key.removeprefix(prefix)}" in own:
            state[f"{prefix}loss.{key.removeprefix(prefix)}"] = state.pop(key)


class SoftTargets(LossTerm):
    """KD on the predictions."""

    def __init__(self, temperature: float = 4.0, standardised: bool = False) -> None:
        super().__init__(KDLoss(temperature, standardised), ("logits", "logits"))


def seeded(build: Callable[[], M], seed: int = 0) -> M:
    """Build a module from a seed of its own, so that what belongs to the teacher is the same for every student."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def labels_and_kd(ce_weight: float, kd_weight: float) -> dict[str, tuple[float, Term]]:
    """The terms that stand beside every method's own: cross-entropy and, where its weight is not 0, KD at T = 4."""
    loss: dict[str, tuple[float, Term]] = {"ce": (ce_weight, CrossEntropy())}
    return loss | ({"kd": (kd_weight, SoftTargets())} if kd_weight else {})


def student_plan(
    loss: Mapping[str, tuple[float, Term]], epochs: int, optim: Optim, notes: tuple[str, ...] = ()
) -> Plan:
    """A plan of one stage that trains the student and whatever its terms own."""
    return Plan((student_stage(loss, epochs, optim),), Plain(), notes=notes)


def student_stage(loss: Mapping[str, tuple[float, Term]], epochs: int, optim: Optim, name: str = "student") -> Stage:
    """A stage that trains the student and whatever its terms own."""
    owned = tuple(name for name, (_, term) in loss.items() if [*term.parameters()])
    return Stage(name, loss, ("student", *owned), epochs, optim)


def initialisation(
    pair: Pair, loss: Mapping[str, tuple[float, Term]], epochs: int, lr: float | None, optim: Optim
) -> Stage:
    """A stage before the student's own: at one rate, the student's where none is given, with its other settings.

    What comes after the student's last stage, such as a wide ResNet's final batch norm, stays as it is, in eval mode.
    """
    need_positive(init_epochs=epochs)
    steady = replace(optim, lr=optim.peak if lr is None else lr, schedule="step", milestones=())
    return replace(student_stage(loss, epochs, steady, "init"), frozen=pair.after_stages.get("student", ()))


def need_teacher(pair: Pair, method: str) -> None:
    """Refuse a run without a teacher.

    Raises:
        UserError: there is none.
    """
    if pair.teacher is None:
        raise UserError(f"{method} distils from a teacher. Say --teacher RUN_OR_FILE, or use --method ce.")
