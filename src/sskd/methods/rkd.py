"""RKD: Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.logits import check_batch
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan, Term
from sskd.methods.stages import need_vector


class RKDDistanceLoss(nn.Module):
    """Smooth L1 of the distances between a batch's images, each over their mean.

    Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019, equations 5 to 7. The mean is over the distances
    above 0, and the loss over all B^2 pairs, as in the authors' code.
    """

    def forward(self, student: Float[Tensor, "B D"], teacher: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
        """The loss of features; the two widths need not agree.

        Raises:
            UserError: other numbers of images.
        """
        check_batch(student, teacher)
        return F.smooth_l1_loss(_scaled(student), _scaled(teacher))


class RKDAngleLoss(nn.Module):
    """Smooth L1 of the angles' cosines at each image of each triplet of a batch (equations 8 to 10)."""

    def forward(self, student: Float[Tensor, "B D"], teacher: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
        """The loss of features; the two widths need not agree.

        Raises:
            UserError: other numbers of images.
        """
        check_batch(student, teacher)
        return F.smooth_l1_loss(_cosines(student), _cosines(teacher))


class RKDLoss(nn.Module):
    """Relational knowledge distillation: 25 x the distances' loss + 50 x the angles'.

    Park, Kim, Lu, Cho, CVPR 2019, with the authors' weights. 0 or more. Relates the images of a batch.

    Example:
        >>> features = torch.rand(4, 8)
        >>> abs(float(RKDLoss()(features, 2 * features))) < 1e-4
        True
    """

    def __init__(self, distance_weight: float = 25.0, angle_weight: float = 50.0) -> None:
        super().__init__()
        self.distance, self.angle = RKDDistanceLoss(), RKDAngleLoss()
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def forward(self, student: Float[Tensor, "B D"], teacher: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
        """The weighted sum, of features; the two widths need not agree.

        Raises:
            UserError: other numbers of images.
        """
        distances, angles = self.distance(student, teacher), self.angle(student, teacher)
        loss: Tensor = self.distance_weight * distances + self.angle_weight * angles
        return loss


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
        "distance": (distance_weight, LossTerm(RKDDistanceLoss(), ("pooled", "pooled"), relates=True)),
        "angle": (angle_weight, LossTerm(RKDAngleLoss(), ("pooled", "pooled"), relates=True)),
    }
    return student_plan(labels_and_kd(ce_weight, kd_weight) | loss, epochs, optim)
