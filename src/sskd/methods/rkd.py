"""RKD: Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sskd.methods.parts import labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.methods.stages import need_vector
from sskd.views.pretext import Batch


class Distances(Term):
    """Smooth L1 of the distances between the batch's images, each over their mean (equations 5-7).

    The mean is over the distances above 0, and the loss over all B^2 pairs, as in the authors' code.
    """

    student_taps = ("pooled",)
    teacher_taps = ("pooled",)
    relates = True

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Features are [B, V, D]; the two widths need not agree."""
        return F.smooth_l1_loss(_scaled(student["pooled"][:, 0]), _scaled(teacher["pooled"][:, 0]))


class Angles(Term):
    """Smooth L1 of the angles' cosines at each image of each triplet (equations 8-10)."""

    student_taps = ("pooled",)
    teacher_taps = ("pooled",)
    relates = True

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Features are [B, V, D]; the two widths need not agree."""
        return F.smooth_l1_loss(_cosines(student["pooled"][:, 0]), _cosines(teacher["pooled"][:, 0]))


def _scaled(z: Float[Tensor, "B D"]) -> Float[Tensor, "B B"]:
    square = z.square().sum(1)
    squared = (square[:, None] + square[None, :] - 2 * z @ z.T).clamp(min=1e-12)
    distance = squared.sqrt() * (1 - torch.eye(len(z), dtype=z.dtype, device=z.device))
    mean = distance.sum() / (distance > 0).sum().clamp(min=1)
    return distance / mean.clamp(min=1e-12)


def _cosines(z: Float[Tensor, "B D"]) -> Float[Tensor, "B B B"]:
    unit = F.normalize(z[None] - z[:, None], dim=2)
    return torch.bmm(unit, unit.transpose(1, 2))


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
) -> Plan:
    """25 distances + 50 angles, the authors' values.

    Raises:
        UserError: no teacher; a network without a linear classifier.
    """
    need_teacher(pair, "rkd")
    for side in ("student", "teacher"):
        need_vector(pair, "rkd", side)
    loss: dict[str, tuple[float, Term]] = {
        "distance": (distance_weight, Distances()),
        "angle": (angle_weight, Angles()),
    }
    return student_plan(labels_and_kd(ce_weight, kd_weight) | loss, epochs, optim)
