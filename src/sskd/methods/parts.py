"""Pieces that several methods are made of."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sskd.errors import UserError
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


def row_kl(teacher: Float[Tensor, "M K"], student: Float[Tensor, "M K"], temperature: float) -> Float[Tensor, "M"]:
    """T^2 KL(teacher || student) of each row's softmax at temperature T (Hinton et al. 2015, section 2)."""
    target = F.log_softmax(teacher / temperature, dim=1)
    prediction = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(prediction, target, reduction="none", log_target=True).sum(1) * temperature**2


def standardise(logits: Float[Tensor, "M K"]) -> Float[Tensor, "M K"]:
    """Each row's z-score: Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024."""
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7)


class SoftTargets(Term):
    """T^2 KL(teacher || student) on view 0, averaged over the batch: Hinton et al. 2015, section 2."""

    student_taps = ("logits",)
    teacher_taps = ("logits",)

    def __init__(self, temperature: float = 4.0, standardised: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.standardised = standardised

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Logits are [B, V, K]."""
        target, prediction = teacher["logits"][:, 0], student["logits"][:, 0]
        if self.standardised:
            target, prediction = standardise(target), standardise(prediction)
        return row_kl(target, prediction, self.temperature).mean()


def error_level(logits: Float[Tensor, "M K"], answer: Int64[Tensor, "M"]) -> Int64[Tensor, "M"]:
    """The rank of the right answer: how many entries are strictly greater (0 = correct; SSKD's "error level")."""
    right = logits.gather(1, answer[:, None])
    return (logits > right).sum(1)


def select(level: Int64[Tensor, "M"], ratio: float) -> Bool[Tensor, "M"]:
    """Selective transfer: all correct rows and the first int(ratio x wrong) others by error level, ties in row order.

    A mask and not a list of rows: the shape does not depend on the values, so nothing waits for the device and the
    step compiles as one graph.
    """
    wrong = (level > 0).sum()
    kept = (len(level) - wrong) + (wrong.double() * ratio).long()
    # The inverse of a stable sort is each row's place in it.
    place = torch.argsort(torch.argsort(level, stable=True))
    return place < kept


def masked_mean(values: Float[Tensor, "M"], mask: Bool[Tensor, "M"]) -> Float[Tensor, ""]:
    """Mean of the kept values; 0 where none is kept."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def seeded(build: Callable[[], M], seed: int = 0) -> M:
    """Build a module from a seed of its own, so that what belongs to the teacher is the same for every student."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class PerStage(Term):
    """The sum of one comparison for each pair of stages."""

    def __init__(self, aligned: Aligned) -> None:
        super().__init__()
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(*aligned, strict=True))

    def each(self, student: Outputs, teacher: Outputs) -> list[Float[Tensor, ""]]:
        """The comparison of each pair."""
        taps = zip(self.student_taps, self.teacher_taps, strict=True)
        return [self.compare(i, student[s][:, 0], teacher[t][:, 0]) for i, (s, t) in enumerate(taps)]

    def compare(
        self, i: int, student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B D h w"]
    ) -> Float[Tensor, ""]:
        """The i-th pair's loss."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Sum over the pairs."""
        return torch.stack(self.each(student, teacher)).sum()


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


def need_positive(**values: float) -> None:
    """Refuse temperatures, epochs and rates that are not above zero.

    Raises:
        UserError: names the option.
    """
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} must be above 0; got {value}.")
