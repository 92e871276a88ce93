"""VID: Ahn et al., "Variational Information Distillation for Knowledge Transfer", CVPR 2019, arXiv 1904.05835."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.adapters import match
from sskd.methods.parts import PerStage, labels_and_kd, need_positive, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import Aligned, align, need_map

_EPS = 1e-5


class Variational(PerStage):
    """Negative log-likelihood of the teacher's maps under a Gaussian whose mean is made of the student's (equation 5).

    0.5 ((mu - t)^2 / var + log var), averaged over everything, summed over stages; one variance for each channel.
    Where sizes differ the larger maps are averaged to the smaller.
    """

    def __init__(self, aligned: Aligned, widths: list[tuple[int, int]], variance: float) -> None:
        super().__init__(aligned)
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
    widths = [(need_map(pair, "vid", "student", s)[0], need_map(pair, "vid", "teacher", t)[0]) for s, t in aligned]
    term = Variational(aligned, widths, variance)
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"vid": (weight, term)}, epochs, optim)
