"""PKT: Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.logits import check_batch
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import need_vector

_EPS = 1e-7


class PKTLoss(nn.Module):
    """Probabilistic knowledge transfer: KL of the probabilities of a batch's images given each other, from cosines.

    Passalis, Tefas, ECCV 2018, equations 6, 7 and 11. As in the authors' code an image counts as its own neighbour, and
    the mean is over all B^2 entries. 0 or more; usually weighed 30000.

    Example:
        >>> features = torch.rand(4, 8)
        >>> abs(float(PKTLoss()(features, 2 * features))) < 1e-6
        True
    """

    def forward(self, student: Float[Tensor, "B D"], teacher: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
        """The loss of features; the two widths need not agree.

        Raises:
            UserError: other numbers of images.
        """
        check_batch(student, teacher)
        s, t = neighbours(student), neighbours(teacher)
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
    term = LossTerm(PKTLoss(), ("pooled", "pooled"), relates=True)
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"pkt": (weight, term)}, epochs, optim)
