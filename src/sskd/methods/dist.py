"""DIST: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv 2205.10536."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.logits import TemperatureLoss, comparable, need_positive
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan, Term

_EPS = 1e-8


class InterClassLoss(TemperatureLoss):
    """T^2 (1 - Pearson's correlation) of each image's probabilities over the classes, batch mean (equation 9)."""

    def forward(self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """The loss of logits.

        Raises:
            UserError: unequal shapes.
        """
        logits = comparable(student, teacher, self.standardised)
        s, t = ((values / self.temperature).softmax(1) for values in logits)
        return self.temperature**2 * (1 - self.correlation(s, t).mean())

    def correlation(self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Float[Tensor, "_"]:
        """Of probabilities, row by row."""
        return pearson(student, teacher)


class IntraClassLoss(InterClassLoss):
    """T^2 (1 - Pearson's correlation) of each class's probabilities over the batch (equation 10)."""

    def correlation(self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Float[Tensor, "_"]:
        """Of probabilities, column by column."""
        return pearson(student.T, teacher.T)


class DISTLoss(nn.Module):
    """DIST: beta x the inter-class relation + gamma x the intra-class relation.

    Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, equations 9 to 11. The authors add it
    to cross-entropy with weight 1; for ImageNet they take 1, 1 at T = 1. 0 or more. Relates the images of a batch.

    Args:
        beta: weight of each image's predictions over the classes.
        gamma: weight of each class's predictions over the images.
        temperature: T, above 0.
        standardised: compare each row's z-scores (logit standardisation).

    Example:
        >>> logits = torch.randn(4, 10)
        >>> abs(float(DISTLoss()(2 * logits, 2 * logits))) < 1e-4
        True
    """

    def __init__(
        self, beta: float = 2.0, gamma: float = 2.0, temperature: float = 4.0, standardised: bool = False
    ) -> None:
        super().__init__()
        self.beta, self.gamma = beta, gamma
        self.inter, self.intra = InterClassLoss(temperature, standardised), IntraClassLoss(temperature, standardised)

    def forward(self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """The weighted sum, of logits.

        Raises:
            UserError: unequal shapes.
        """
        loss: Tensor = self.beta * self.inter(student, teacher) + self.gamma * self.intra(student, teacher)
        return loss


def pearson(first: Float[Tensor, "R C"], second: Float[Tensor, "R C"]) -> Float[Tensor, "R"]:
    """The correlation of each pair of rows; 0 for a row that is constant."""
    a, b = (values - values.mean(1, keepdim=True) for values in (first, second))
    lengths: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (a * b).sum(1) / (lengths + _EPS)


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    beta: float = 2.0,
    gamma: float = 2.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    temperature: float = 4.0,
    standardised: bool = False,
) -> Plan:
    """Cross-entropy + beta inter-class + gamma intra-class relation. For ImageNet the authors take 1, 1 at T = 1.

    `standardised` compares z-scores of the logits (logit standardisation).

    Raises:
        UserError: no teacher; a temperature not above 0.
    """
    need_teacher(pair, "dist")
    need_positive(temperature=temperature)
    taps = ("logits", "logits")
    loss: dict[str, tuple[float, Term]] = {
        "inter": (beta, LossTerm(InterClassLoss(temperature, standardised), taps)),
        "intra": (gamma, LossTerm(IntraClassLoss(temperature, standardised), taps, relates=True)),
    }
    return student_plan(labels_and_kd(ce_weight, kd_weight) | loss, epochs, optim)
