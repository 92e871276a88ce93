"""NST: Huang, Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017, arXiv 1707.01219."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sskd.methods.adapters import StageLoss, match
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import align


class NSTLoss(StageLoss):
    """Neuron selectivity transfer: squared MMD of the channels' activation patterns with the kernel (x . y)^2.

    Huang, Wang, 2017, equations 6 and 8, batch mean. A channel's pattern over the H W positions is one sample, of unit
    length. Where sizes differ the larger maps are averaged to the smaller. Summed over stages; the paper matches the
    last maps alone. 0 or more; usually weighed 50.

    Example:
        >>> maps = torch.rand(2, 8, 4, 4)
        >>> abs(float(NSTLoss()([maps], [maps]))) < 1e-6
        True
    """

    def compare(
        self, i: int, student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B D h w"]
    ) -> Float[Tensor, ""]:
        """One stage."""
        s, t = (F.normalize(maps.flatten(2), dim=2) for maps in match(student, teacher))
        return _kernel(t, t).mean() + _kernel(s, s).mean() - 2 * _kernel(s, t).mean()


def _kernel(first: Float[Tensor, "B C P"], second: Float[Tensor, "B D P"]) -> Float[Tensor, "B C D"]:
    return torch.bmm(first, second.transpose(1, 2)).square()


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 50.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    stages: tuple[str, ...] | None = None,
) -> Plan:
    """`stages` as "stage2" or "STUDENT:TEACHER"; all, where both networks have as many.

    Raises:
        UserError: no teacher; stages that cannot be compared.
    """
    need_teacher(pair, "nst")
    term = LossTerm(NSTLoss(), align(pair, "nst", stages))
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"nst": (weight, term)}, epochs, optim)
