"""IRG: Liu et al., "Knowledge Distillation via Instance Relationship Graph", CVPR 2019.

The paper published no code; terms and weights are those of a public re-implementation.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sskd.errors import UserError
from sskd.methods.adapters import pooled
from sskd.methods.parts import labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.methods.stages import align, need_vector
from sskd.views.pretext import Batch

Taps = tuple[str, str]
_EPS = 1e-12


class Vertices(Term):
    """Mean squared difference of the logits."""

    student_taps = ("logits",)
    teacher_taps = ("logits",)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over everything."""
        return F.mse_loss(student["logits"][:, 0], teacher["logits"][:, 0])


class Edges(Term):
    """Mean squared difference of the squared distances between images, each matrix over its largest entry.

    The mean of three: of the classifier's input and of two maps. The sides' shapes need not agree.
    """

    relates = True

    def __init__(self, first: Taps, second: Taps) -> None:
        super().__init__()
        self.student_taps, self.teacher_taps = ((*side, "pooled") for side in zip(first, second, strict=True))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the three."""
        taps = zip(self.student_taps, self.teacher_taps, strict=True)
        parts = [F.mse_loss(edges(student[s][:, 0]), edges(teacher[t][:, 0])) for s, t in taps]
        return torch.stack(parts).mean()


class Transformations(Term):
    """Mean squared difference of how far each image moves from one map to the next, over the batch's largest.

    The first map is averaged to the second's size; the second's channels, in neighbouring groups, to the first's.
    """

    relates = True

    def __init__(self, first: Taps, second: Taps) -> None:
        super().__init__()
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(first, second, strict=True))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the batch."""
        sides = ((student, self.student_taps), (teacher, self.teacher_taps))
        s, t = (moved(*(outputs[tap][:, 0] for tap in taps)) for outputs, taps in sides)
        return F.mse_loss(s, t)


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
        "vertex": (vertex_weight, Vertices()),
        "edge": (edge_weight, Edges(*aligned)),
        "transformation": (transformation_weight, Transformations(*aligned)),
    }
    return student_plan(labels_and_kd(ce_weight, kd_weight) | loss, epochs, optim)
