"""DIST: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv 2205.10536."""

import torch
from jaxtyping import Float
from torch import Tensor

from sskd.methods.parts import labels_and_kd, need_positive, need_teacher, standardise, student_plan
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.views.pretext import Batch

_EPS = 1e-8


class _Relation(Term):
    student_taps = ("logits",)
    teacher_taps = ("logits",)
    across = False  # of a class over the images, instead of an image over the classes

    def __init__(self, temperature: float, standardised: bool) -> None:
        super().__init__()
        self.temperature = temperature
        self.standardised = standardised

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """T^2 (1 - Pearson's correlation of the probabilities), mean over rows or columns."""
        logits = [side["logits"][:, 0] for side in (student, teacher)]
        if self.standardised:
            logits = [standardise(values) for values in logits]
        s, t = ((values / self.temperature).softmax(1) for values in logits)
        correlation = pearson(s.T, t.T) if self.across else pearson(s, t)
        return self.temperature**2 * (1 - correlation.mean())


class InterClass(_Relation):
    """Of each image's predictions over the classes (equation 9)."""


class IntraClass(_Relation):
    """Of each class's predictions over the batch (equation 10)."""

    across = True
    relates = True


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
    loss: dict[str, tuple[float, Term]] = {
        "inter": (beta, InterClass(temperature, standardised)),
        "intra": (gamma, IntraClass(temperature, standardised)),
    }
    return student_plan(labels_and_kd(ce_weight, kd_weight) | loss, epochs, optim)
