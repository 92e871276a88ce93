"""VID: Ahn et al., "Variational Information Distillation for Knowledge Transfer", CVPR 2019, arXiv 1904.05835."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.adapters import StageLoss, check_stages, match
from sskd.methods.logits import need_positive
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import align, need_map

_EPS = 1e-5


class VIDLoss(StageLoss):
    """Variational information distillation: how unlikely the teacher's maps are, given the student's.

    Ahn et al., CVPR 2019, equation 5: 0.5 ((mu - t)^2 / var + log var), averaged over everything, summed over stages.
    mu is made of the student's maps by three 1x1 convolutions; there is one learned variance for each channel. Give the
    loss's parameters to the optimizer. May be negative. Where sizes differ the larger maps are averaged to the smaller.

    Args:
        student_channels: of the student's maps, stage by stage.
        teacher_channels: of the teacher's.
        variance: at the start, above 1e-5.

    Example:
        >>> loss = VIDLoss(student_channels=[8, 16], teacher_channels=[16, 32])
        >>> student, teacher = ([torch.rand(2, c, 4, 4) for c in widths] for widths in ((8, 16), (16, 32)))
        >>> loss(student, teacher).shape
        torch.Size([])
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int], variance: float = 5.0) -> None:
        super().__init__()
        check_stages(student_channels, teacher_channels)
        need_positive(variance=variance - _EPS)
        widths = zip(student_channels, teacher_channels, strict=True)
        self.layers = nn.ModuleList(Gaussian(s, t, variance) for s, t in widths)

    def compare(
        self, i: int, student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B D h w"]
    ) -> Float[Tensor, ""]:
        """One stage."""
        loss: Tensor = self.layers[i](*match(student, teacher))
        return loss


class Gaussian(nn.Module):
    """Three 1x1 convolutions for the mean, and a learned variance for each channel."""

    def __init__(self, student: int, teacher: int, variance: float) -> None:
        super().__init__()
        convs = [nn.Conv2d(width, teacher, 1, bias=False) for width in (student, teacher, teacher)]
        self.regressor = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])
        self.log_scale = nn.Parameter(torch.full((teacher,), math.log(math.expm1(variance - _EPS))))

    def forward(self, student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B D H W"]) -> Float[Tensor, ""]:
        """Mean negative log-likelihood, without its constant."""
        variance = (F.softplus(self.log_scale) + _EPS).view(1, -1, 1, 1)
        mean: Tensor = self.regressor(student)
        return 0.5 * ((mean - teacher).square() / variance + variance.log()).mean()


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 1.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    variance: float = 5.0,
    stages: tuple[str, ...] | None = None,
) -> Plan:
    """`variance`: at the start. `stages` as "stage2" or "STUDENT:TEACHER"; all, where both networks have as many.

    Raises:
        UserError: no teacher; stages that cannot be compared.
    """
    need_teacher(pair, "vid")
    need_positive(variance=variance - _EPS)
    aligned = align(pair, "vid", stages)
    ours = [need_map(pair, "vid", "student", tap)[0] for tap, _ in aligned]
    theirs = [need_map(pair, "vid", "teacher", tap)[0] for _, tap in aligned]
    term = LossTerm(VIDLoss(ours, theirs, variance), aligned)
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"vid": (weight, term)}, epochs, optim)
