"""DKD: Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", CVPR 2022, arXiv 2203.08679."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.methods.logits import TemperatureLoss, check_labels, comparable, need_at_least_zero, need_positive, row_kl
from sskd.methods.parts import labels_and_kd, need_teacher, student_plan, warmed_up
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.methods.stages import Scaled, scaled
from sskd.views.pretext import Batch


class LabelLoss(TemperatureLoss):
    """A comparison of logits that reads the labels, batch mean. To be derived from."""

    def forward(
        self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """The loss of logits.

        Raises:
            UserError: unequal shapes; labels that are not one class number for each row.
        """
        student, teacher = comparable(student, teacher, self.standardised)
        check_labels(student, labels)
        return self.compare(student, teacher, labels)

    def compare(
        self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """The loss of comparable logits."""
        raise NotImplementedError


class TargetClassLoss(LabelLoss):
    """TCKD: T^2 KL of (probability of the label, probability of all others) (equation 7)."""

    def compare(
        self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """From logits: the log-odds of the label are a two-class problem's logits."""
        odds = (log_odds(logits / self.temperature, labels) for logits in (teacher, student))
        t, s = (torch.stack([value, torch.zeros_like(value)], dim=1) for value in odds)
        return row_kl(t, s, 1.0).mean() * self.temperature**2


class OtherClassesLoss(LabelLoss):
    """NCKD: T^2 KL of the probabilities among the classes that are not the label (equation 7)."""

    def compare(
        self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """The label's logit is put so low that it has no share."""
        low = 1000.0 * F.one_hot(labels, teacher.shape[1])
        t, s = (logits / self.temperature - low for logits in (teacher, student))
        return row_kl(t, s, 1.0).mean() * self.temperature**2


def log_odds(logits: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]) -> Float[Tensor, "B"]:
    """log p(label) - log p(any other)."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits.gather(1, labels[:, None])[:, 0] - logits.masked_fill(own, -torch.inf).logsumexp(1)


class DKDLoss(nn.Module):
    """Decoupled knowledge distillation: alpha x TCKD + beta x NCKD, batch mean.

    Zhao, Cui, Song, Qiu, Liang, CVPR 2022, equation 7. The authors add it to cross-entropy, both with weight 1, and
    warm it up linearly over 20 epochs. With two classes NCKD is 0. 0 or more.

    Args:
        alpha: weight of the label's own probability.
        beta: weight of the others; 8, or 2 for resnet56 -> resnet20, 6 for vgg13 and wide ResNets.
        temperature: T, above 0.
        standardised: compare each row's z-scores (logit standardisation).

    Example:
        >>> student, teacher = torch.randn(4, 10), torch.randn(4, 10)
        >>> bool(DKDLoss()(student, teacher, torch.tensor([0, 1, 2, 3])) > 0)
        True
    """

    def __init__(
        self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, standardised: bool = False
    ) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.target_class = TargetClassLoss(temperature, standardised)
        self.other_classes = OtherClassesLoss(temperature, standardised)

    def forward(
        self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """The weighted sum, of logits.

        Raises:
            UserError: unequal shapes.
        """
        target, others = self.target_class(student, teacher, labels), self.other_classes(student, teacher, labels)
        loss: Tensor = self.alpha * target + self.beta * others
        return loss


class Decoupled(Term):
    """A loss of logits and labels, such as one half of DKD, that counts little at first: see `warmed_up`."""

    student_taps = ("logits",)
    teacher_taps = ("logits",)

    def __init__(self, loss: LabelLoss, warm_up: float) -> None:
        super().__init__()
        self.loss = loss
        self.warm_up = warm_up

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Batch mean."""
        loss: Tensor = self.loss(student["logits"][:, 0], teacher["logits"][:, 0], batch.labels)
        return warmed_up(loss, batch.epoch, self.warm_up)


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
    need_at_least_zero(warm_up=length)
    given = (temperature, standardised)
    loss: dict[str, tuple[float, Term]] = {
        "tckd": (alpha, Decoupled(TargetClassLoss(*given), length)),
        "nckd": (beta, Decoupled(OtherClassesLoss(*given), length)),
    }
    return student_plan(labels_and_kd(ce_weight, kd_weight) | loss, epochs, optim, notes)
