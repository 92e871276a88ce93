"""PKT: Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018."""

import torch
from jaxtyping import Float
from torch import Tensor

from sskd.methods.parts import labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.methods.stages import need_vector
from sskd.views.pretext import Batch

_EPS = 1e-7


class Probabilities(Term):
    """KL of the conditional probabilities of the batch's images given each other, from cosines (equations 6, 7, 11).

    As in the authors' code: an image counts as its own neighbour, and the mean is over all B^2 entries.
    """

    student_taps = ("pooled",)
    teacher_taps = ("pooled",)
    relates = True

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Features are [B, V, D]; the two widths need not agree."""
        s, t = neighbours(student["pooled"][:, 0]), neighbours(teacher["pooled"][:, 0])
        return (t * ((t + _EPS).log() - (s + _EPS).log())).mean()


def neighbours(z: Float[Tensor, "B D"]) -> Float[Tensor, "B B"]:
    """Each row the probability of the images given one of them."""
    unit = z / (torch.linalg.vector_norm(z, dim=1, keepdim=True) + _EPS)
    cosine: Tensor = (unit @ unit.T + 1) / 2
    return cosine / cosine.sum(1, keepdim=True)


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 30000.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
) -> Plan:
    """One term on the classifiers' inputs.

    Raises:
        UserError: no teacher; a network without a linear classifier.
    """
    need_teacher(pair, "pkt")
    for side in ("student", "teacher"):
        need_vector(pair, "pkt", side)
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"pkt": (weight, Probabilities())}, epochs, optim)
