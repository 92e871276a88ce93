"""IRG: Liu et al., "Knowledge Distillation via Instance Relationship Graph", CVPR 2019.

The paper published no code; terms and weights are those of a public re-implementation.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.methods.adapters import Maps, check_maps, pooled
from sskd.methods.logits import check_batch, check_logits
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan, Term
from sskd.methods.stages import align, need_vector

_EPS = 1e-12


class VertexLoss(nn.Module):
    """Mean squared difference of the logits."""

    def forward(self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Mean over everything.

        Raises:
            UserError: unequal shapes.
        """
        check_logits(student, teacher)
        return F.mse_loss(student, teacher)


class EdgeLoss(nn.Module):
    """Mean squared difference of the squared distances between images, each matrix over its largest entry."""

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Float[Tensor, ""]:
        """The mean over several values [B, ...] of each network, whose shapes need not agree.

        Raises:
            UserError: other numbers of images.
        """
        for s, t in zip(student, teacher, strict=True):
            check_batch(s, t)
        return torch.stack([F.mse_loss(edges(s), edges(t)) for s, t in zip(student, teacher, strict=True)]).mean()


class TransformationLoss(nn.Module):
    """Mean squared difference of how far each image moves from one map to the next, over the batch's largest.

    The first map is averaged to the second's size; the second's channels, in neighbouring groups, to the first's.
    """

    def forward(self, student: Maps, teacher: Maps) -> Float[Tensor, ""]:
        """Mean over the batch, of two maps [B, C, H, W] of each network.

        Raises:
            UserError: other than two maps; values that are no maps, or of other batches.
        """
        check_maps(student, teacher)
        if len(student) != 2:
            raise UserError(f"This loss compares two maps of each network; it was given {len(student)}.")
        return F.mse_loss(moved(*student), moved(*teacher))


class IRGLoss(nn.Module):
    """Instance relationship graph: .1 x vertices + 5 x edges + 5 x transformations.

    Liu et al., CVPR 2019, with the weights of a public re-implementation. 0 or more. Relates the images of a batch.

    Example:
        >>> maps = [torch.rand(4, 8, 4, 4), torch.rand(4, 16, 2, 2)]
        >>> values = (torch.rand(4, 10), torch.rand(4, 16), maps)  # logits, features, two maps
        >>> float(IRGLoss()(values, values))
        0.0
    """

    def __init__(
        self, vertex_weight: float = 0.1, edge_weight: float = 5.0, transformation_weight: float = 5.0
    ) -> None:
        super().__init__()
        self.vertex, self.edge, self.transformation = VertexLoss(), EdgeLoss(), TransformationLoss()
        self.weights = (vertex_weight, edge_weight, transformation_weight)

    def forward(self, student: tuple[Tensor, Tensor, Maps], teacher: tuple[Tensor, Tensor, Maps]) -> Float[Tensor, ""]:
        """The weighted sum, of logits [B, K], features [B, D] and two maps [B, C, H, W] of each network.

        Raises:
            UserError: logits of other shapes; other than two maps; other batches.
        """
        (s_logits, s_pooled, s_maps), (t_logits, t_pooled, t_maps) = student, teacher
        parts = (
            self.vertex(s_logits, t_logits),
            self.edge([*s_maps, s_pooled], [*t_maps, t_pooled]),
            self.transformation(s_maps, t_maps),
        )
        return torch.stack([weight * part for weight, part in zip(self.weights, parts, strict=True)]).sum()


def edges(values: Float[Tensor, "B ..."]) -> Float[Tensor, "B B"]:
    """Squared distances between the images, over the largest."""
    flat = values.flatten(1)
    square = flat.square().sum(1)
    distance = (square[:, None] + square[None] - 2 * flat @ flat.T).clamp(min=0)
    distance = distance * (1 - torch.eye(len(flat), dtype=flat.dtype, device=flat.device))
    return distance / distance.max().clamp(min=_EPS)


def moved(first: Float[Tensor, "B C H W"], second: Float[Tensor, "B D h w"]) -> Float[Tensor, "B"]:
    """Squared distance between two maps of an image, over the batch's largest."""
    height, width = second.shape[-2:]
    first = pooled(first, height, width)
    second = F.adaptive_avg_pool1d(second.flatten(2).transpose(1, 2).flatten(0, 1)[:, None], first.shape[1])
    second = second[:, 0].view(len(first), height * width, -1).transpose(1, 2)
    distance = (first.flatten(2) - second).square().sum((1, 2))
    return distance / distance.max().clamp(min=_EPS)


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    vertex_weight: float = 0.1,
    edge_weight: float = 5.0,
    transformation_weight: float = 5.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    stages: tuple[str, ...] = ("stage2", "stage3"),
) -> Plan:
    """Vertices, edges and transformations. `stages`: two, each as "stage2" or "STUDENT:TEACHER".

    Raises:
        UserError: no teacher; other than two stages; stages that are not there or give no maps; no linear classifier.
    """
    need_teacher(pair, "irg")
    for side in ("student", "teacher"):
        need_vector(pair, "irg", side)
    aligned = align(pair, "irg", stages)
    if len(aligned) != 2:
        raise UserError(f"irg compares two maps; --options.stages names {len(aligned)}: {', '.join(stages)}.")
    loss: dict[str, tuple[float, Term]] = {
        "vertex": (vertex_weight, LossTerm(VertexLoss(), ("logits", "logits"))),
        "edge": (edge_weight, LossTerm(EdgeLoss(), (*aligned, ("pooled", "pooled")), relates=True)),
        "transformation": (transformation_weight, LossTerm(TransformationLoss(), aligned, relates=True)),
    }
    return student_plan(labels_and_kd(ce_weight, kd_weight) | loss, epochs, optim)
