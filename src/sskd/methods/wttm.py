"""WTTM: Zheng, Yang, "Knowledge Distillation Based on Transformed Teacher Matching", ICLR 2024, arXiv 2402.11148."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.logits import check_logits, need_positive
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan


class WTTMLoss(nn.Module):
    """Transformed teacher matching: KL(q, student), q the teacher's probabilities to the power of gamma, batch mean.

    The student's temperature is 1. q = p^gamma / Z with Z = sum of p^gamma over the classes. Weighted (WTTM), each
    image's KL counts Z times, which is the more, the less certain the teacher is; otherwise (TTM) once. 0 or more; the
    authors weigh it 45 beside cross-entropy with 1.

    Args:
        gamma: above 0; 1 / the teacher's temperature.
        weighted: multiply by Z.

    Example:
        >>> logits = torch.randn(4, 10)
        >>> abs(float(WTTMLoss(gamma=1.0)(logits, logits))) < 1e-6
        True
    """

    def __init__(self, gamma: float = 0.1, weighted: bool = True) -> None:
        super().__init__()
        need_positive(gamma=gamma)
        self.gamma = gamma
        self.weighted = weighted

    def forward(self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """The loss of logits.

        Raises:
            UserError: unequal shapes.
        """
        check_logits(student, teacher)
        power = self.gamma * F.log_softmax(teacher, dim=1)
        log_z = power.logsumexp(1)
        rows = F.kl_div(F.log_softmax(student, dim=1), power - log_z[:, None], reduction="none", log_target=True).sum(1)
        return (rows * log_z.exp()).mean() if self.weighted else rows.mean()


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 45.0,
    gamma: float = 0.1,
    weighted: bool = True,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
) -> Plan:
    """Cross-entropy + 45 WTTM, the authors' example; TTM with `weighted` false.

    Raises:
        UserError: there is no teacher; gamma is not above 0.
    """
    need_teacher(pair, "wttm")
    need_positive(gamma=gamma)
    term = LossTerm(WTTMLoss(gamma, weighted), ("logits", "logits"))
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"wttm": (weight, term)}, epochs, optim)
