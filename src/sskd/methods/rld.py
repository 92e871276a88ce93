"""RLD: Sun et al., "Knowledge Distillation with Refined Logits", ICCV 2025, arXiv 2408.07703."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.methods.dkd import Decoupled, LabelLoss, log_odds
from sskd.methods.logits import need_at_least_zero, need_positive, row_kl
from sskd.methods.parts import labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan, Term
from sskd.methods.stages import Scaled, scaled

_LOW = -1e9  # in the place of logits that are left out


class SampleConfidenceLoss(LabelLoss):
    """SCD: T^2 KL of the teacher's (top class, all others) to the student's (label, all others), batch mean."""

    def compare(
        self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """From logits: the log-odds of a class are a two-class problem's logits."""
        odds = (
            log_odds(teacher / self.temperature, teacher.argmax(1)),
            log_odds(student / self.temperature, labels),
        )
        t, s = (torch.stack([value, torch.zeros_like(value)], dim=1) for value in odds)
        return row_kl(t, s, 1.0).mean() * self.temperature**2


class MaskedCorrelationLoss(LabelLoss):
    """MCD: T^2 KL over the classes that the teacher scores below the label, batch mean."""

    def compare(
        self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """The label and what the teacher puts before it are left out: it may be wrong about these."""
        above = teacher >= teacher.gather(1, labels[:, None])
        return row_kl(teacher.masked_fill(above, _LOW), student.masked_fill(above, _LOW), self.temperature).mean()


class RLDLoss(nn.Module):
    """Refined logits: alpha x sample confidence + beta x masked correlation, batch mean.

    Sun et al., ICCV 2025. What the teacher gets wrong is not passed on: its confidence is compared with the student's
    in the label, and its order of classes only below the label. Added to cross-entropy with weight 1. 0 or more.

    Args:
        alpha: weight of the sample confidence.
        beta: weight of the masked correlation.
        temperature: of the masked correlation, above 0.
        confidence_temperature: of the sample confidence, above 0.
        standardised: compare each row's z-scores (logit standardisation).

    Example:
        >>> student, teacher = torch.randn(4, 10), torch.randn(4, 10)
        >>> bool(RLDLoss()(student, teacher, torch.tensor([0, 1, 2, 3])) > 0)
        True
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        confidence_temperature: float = 1.0,
        standardised: bool = False,
    ) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.confidence = SampleConfidenceLoss(confidence_temperature, standardised)
        self.correlation = MaskedCorrelationLoss(temperature, standardised)

    def forward(
        self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """The weighted sum, of logits.

        Raises:
            UserError: unequal shapes.
        """
        confidence, correlation = self.confidence(student, teacher, labels), self.correlation(student, teacher, labels)
        loss: Tensor = self.alpha * confidence + self.beta * correlation
        return loss


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    confidence_temperature: float = 1.0,
    warm_up: float | Scaled = Scaled(20),
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    standardised: bool = False,
) -> Plan:
    """Cross-entropy + alpha SCD + beta MCD, both warmed up linearly over `warm_up` epochs. For ImageNet beta .5, T 1.

    Raises:
        UserError: no teacher; a temperature not above 0; a negative warm-up.
    """
    need_teacher(pair, "rld")
    need_positive(temperature=temperature, confidence_temperature=confidence_temperature)
    length, notes = scaled("warm_up", warm_up, epochs)
    need_at_least_zero(warm_up=length)
    loss: dict[str, tuple[float, Term]] = {
        "scd": (alpha, Decoupled(SampleConfidenceLoss(confidence_temperature, standardised), length)),
        "mcd": (beta, Decoupled(MaskedCorrelationLoss(temperature, standardised), length)),
    }
    return student_plan(labels_and_kd(ce_weight, kd_weight) | loss, epochs, optim, notes)
