"""ReviewKD: Chen, Liu, Zhao, Jia, "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv 2104.09044."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.adapters import Map, Maps, check_maps, check_stages, pooled
from sskd.methods.logits import need_at_least_zero, need_positive
from sskd.methods.parts import WarmedUp, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import Scaled, align, need_map, need_vector, scaled

LEVELS = (4, 2, 1)  # sides to which maps are averaged beside their own


class Fusion(nn.Module):
    """ABF: a stage's map and what came from the deeper stages, mixed by attention; then as many channels as needed."""

    def __init__(self, channels: int, width: int, out: int, deepest: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.conv2 = nn.Sequential(nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))
        self.att_conv = None if deepest else nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid())

    def forward(
        self, maps: Float[Tensor, "B C H W"], deeper: Float[Tensor, "B E h w"] | None
    ) -> tuple[Float[Tensor, "B D H W"], Float[Tensor, "B E H W"]]:
        """What is compared with the teacher, and what goes on to the stage before."""
        fused: Tensor = self.conv1(maps)
        if self.att_conv is not None and deeper is not None:
            deeper = F.interpolate(deeper, fused.shape[-2:], mode="nearest")
            share = self.att_conv(torch.cat([fused, deeper], dim=1))
            fused = fused * share[:, :1] + deeper * share[:, 1:]
        return self.conv2(fused), fused


def hierarchical_context(student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """HCL: mean squared difference of two maps, and of their averages to 4, 2 and 1 pixels with falling weights."""
    loss, weight, total = F.mse_loss(student, teacher), 1.0, 1.0
    for side in (side for side in LEVELS if side < student.shape[2]):
        weight /= 2
        loss = loss + weight * F.mse_loss(pooled(student, side, side), pooled(teacher, side, side))
        total += weight
    return loss / total


class ReviewKDLoss(nn.Module):
    """Knowledge review: from the deepest stage up, the student's stages are fused and compared with the teacher's.

    Chen, Liu, Zhao, Jia, CVPR 2021. The fusion modules are trained: give the loss's parameters to the optimizer. 0 or
    more, summed over stages; public configs weigh it 0.6 to 8 by pair and warm it up over 20 epochs.

    Args:
        student_shapes: channels, height and width of the student's maps from shallow to deep; of a vector, (D, 1, 1).
        teacher_shapes: of the teacher's.

    Example:
        >>> loss = ReviewKDLoss([(8, 4, 4), (16, 1, 1)], [(16, 8, 8), (32, 1, 1)])
        >>> student = [torch.rand(2, 8, 4, 4), torch.rand(2, 16)]
        >>> loss(student, [torch.rand(2, 16, 8, 8), torch.rand(2, 32)]).shape
        torch.Size([])
    """

    def __init__(self, student_shapes: Sequence[Map], teacher_shapes: Sequence[Map]) -> None:
        super().__init__()
        check_stages(student_shapes, teacher_shapes)
        width = min(512, student_shapes[-1][0])
        pairs = [*zip(student_shapes, teacher_shapes, strict=True)][::-1]
        self.abf = nn.ModuleList(Fusion(s[0], width, t[0], i == 0) for i, (s, t) in enumerate(pairs))

    def forward(self, student: Maps, teacher: Maps) -> Float[Tensor, ""]:
        """The loss of maps [B, C, H, W] or vectors [B, D], from shallow to deep.

        Raises:
            UserError: unequal numbers of stages; values that are no maps; other batches.
        """
        student, teacher = ([v[..., None, None] if v.ndim == 2 else v for v in side] for side in (student, teacher))
        check_maps(student, teacher)
        deeper, losses = None, []
        for fusion, s, t in zip(self.abf, reversed(student), reversed(teacher), strict=True):
            guess, deeper = fusion(s, deeper)
            if guess.shape[-2:] != t.shape[-2:]:
                guess = F.interpolate(guess, t.shape[-2:], mode="nearest")
            losses.append(hierarchical_context(guess, t))
        return torch.stack(losses).sum()


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 1.0,
    warm_up: float | Scaled = Scaled(20),
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    stages: tuple[str, ...] | None = None,
) -> Plan:
    """All stages and the classifier's input, warmed up linearly over `warm_up` epochs.

    Public configs take weights from 0.6 (resnet56 -> resnet20) to 8 (vgg13 -> vgg8).
    `stages` as "stage2" or "STUDENT:TEACHER", from shallow to deep; all, where both networks have as many.

    Raises:
        UserError: no teacher; stages that cannot be compared; a network without a linear classifier.
    """
    need_teacher(pair, "reviewkd")
    length, notes = scaled("warm_up", warm_up, epochs)
    need_at_least_zero(warm_up=length)
    need_positive(weight=weight)
    aligned = align(pair, "reviewkd", stages)
    ours = [need_map(pair, "reviewkd", "student", tap) for tap, _ in aligned]
    theirs = [need_map(pair, "reviewkd", "teacher", tap) for _, tap in aligned]
    vectors = [(need_vector(pair, "reviewkd", side), 1, 1) for side in ("student", "teacher")]
    loss = ReviewKDLoss([*ours, vectors[0]], [*theirs, vectors[1]])
    term = WarmedUp(loss, (*aligned, ("pooled", "pooled")), length)
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"reviewkd": (weight, term)}, epochs, optim, notes)
