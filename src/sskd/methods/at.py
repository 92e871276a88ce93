"""AT: Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sskd.methods.adapters import StageLoss, match
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import align


class ATLoss(StageLoss):
    """Attention transfer: mean squared difference of attention maps, summed over stages.

    Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017, equation 2 with p = 2: an attention map is
    the mean square over channels, of unit length. As in the widely used code, and unlike the paper's text, the squares
    are averaged over positions, where the paper takes the norm of the difference. Channels may differ; where sizes do,
    the larger maps are averaged to the smaller. 0 or more; usually weighed 1000.

    Example:
        >>> student, teacher = torch.ones(2, 8, 4, 4), torch.ones(2, 16, 4, 4)
        >>> float(ATLoss()([student], [teacher]))
        0.0
    """

    def compare(
        self, i: int, student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B D h w"]
    ) -> Float[Tensor, ""]:
        """One stage."""
        first, second = match(student, teacher)
        return (attention(first) - attention(second)).square().mean()


def attention(maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H*W"]:
    """Where a map is strong: its mean square over channels, of unit length."""
    return F.normalize(maps.square().mean(1).flatten(1))


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 1000.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    stages: tuple[str, ...] | None = None,
) -> Plan:
    """`stages` as "stage2" or "STUDENT:TEACHER"; all, where both networks have as many.

    Raises:
        UserError: no teacher; stages that cannot be compared.
    """
    need_teacher(pair, "at")
    term = LossTerm(ATLoss(), align(pair, "at", stages))
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"at": (weight, term)}, epochs, optim)
