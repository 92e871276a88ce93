"""DKD: Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", CVPR 2022, arXiv 2203.08679."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from sskd.errors import UserError
from sskd.methods.parts import labels_and_kd, need_positive, need_teacher, row_kl, standardise, student_plan
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.methods.stages import Scaled, scaled
from sskd.views.pretext import Batch


class _Decoupled(Term):
    student_taps = ("logits",)
    teacher_taps = ("logits",)

    def __init__(self, temperature: float, warm_up: float, standardised: bool) -> None:
        super().__init__()
        self.temperature = temperature
        self.warm_up = warm_up
        self.standardised = standardised

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Batch mean, times a factor that rises to 1 within the first `warm_up` epochs."""
        target, prediction = teacher["logits"][:, 0], student["logits"][:, 0]
        if self.standardised:
            target, prediction = standardise(target), standardise(prediction)
        loss = self.compare(target, prediction, batch.labels)
        return loss * ((batch.epoch + 1) / self.warm_up).clamp(max=1) if self.warm_up else loss

    def compare(
        self, teacher: Float[Tensor, "B K"], student: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        raise NotImplementedError


class TargetClass(_Decoupled):
    """TCKD: T^2 KL of (probability of the label, probability of all others) (equation 7)."""

    def compare(
        self, teacher: Float[Tensor, "B K"], student: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """From logits: the log-odds of the label are a two-class problem's logits."""
        odds = (log_odds(logits / self.temperature, labels) for logits in (teacher, student))
        t, s = (torch.stack([value, torch.zeros_like(value)], dim=1) for value in odds)
        return row_kl(t, s, 1.0).mean() * self.temperature**2


class OtherClasses(_Decoupled):
    """NCKD: T^2 KL of the probabilities among the classes that are not the label (equation 7)."""

    def compare(
        self, teacher: Float[Tensor, "B K"], student: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """The label's logit is put so low that it has no share."""
        low = 1000.0 * F.one_hot(labels, teacher.shape[1])
        t, s = (logits / self.temperature - low for logits in (teacher, student))
        return row_kl(t, s, 1.0).mean() * self.temperature**2


def log_odds(logits: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]) -> Float[Tensor, "B"]:
    """log p(label) - log p(any other)."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits.gather(1, labels[:, None])[:, 0] - logits.masked_fill(own, -torch.inf).logsumexp(1)


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    alpha: float = 1.0,
    beta: float = 8.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    temperature: float = 4.0,
    warm_up: float | Scaled = Scaled(20),
    standardised: bool = False,
) -> Plan:
    """Cross-entropy + alpha TCKD + beta NCKD, both warmed up linearly over `warm_up` epochs.

    The authors' beta is 8; 2 for resnet56 -> resnet20, 6 for vgg13 and wide ResNets. `standardised` compares z-scores
    of the logits (logit standardisation).

    Raises:
        UserError: no teacher; a temperature not above 0; a negative warm-up.
    """
    need_teacher(pair, "dkd")
    need_positive(temperature=temperature)
    length, notes = scaled("warm_up", warm_up, epochs)
    if length < 0:
        raise UserError(f"warm_up is a number of epochs, 0 or more; got {length}.")
    given = (temperature, length, standardised)
    loss: dict[str, tuple[float, Term]] = {"tckd": (alpha, TargetClass(*given)), "nckd": (beta, OtherClasses(*given))}
    return student_plan(labels_and_kd(ce_weight, kd_weight) | loss, epochs, optim, notes)
