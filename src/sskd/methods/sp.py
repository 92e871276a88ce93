"""SP: Tung, Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sskd.methods.parts import labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.methods.stages import align_one
from sskd.views.pretext import Batch


class SimilarityPreserving(Term):
    """|| G_t - G_s ||_F^2 / B^2, G the images' inner products with each other, rows of unit length (equations 1-4)."""

    relates = True

    def __init__(self, stage: tuple[str, str]) -> None:
        super().__init__()
        self.student_taps, self.teacher_taps = (stage[0],), (stage[1],)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Maps are [B, V, C, H, W]; the two sides' shapes need not agree."""
        s, t = (gram(side[tap][:, 0]) for side, (tap,) in ((student, self.student_taps), (teacher, self.teacher_taps)))
        return (t - s).square().mean()


def gram(maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B B"]:
    """Inner products of the images' maps, each row of unit length."""
    flat = maps.flatten(1)
    return F.normalize(flat @ flat.T)


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 3000.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    stage: str = "last",
) -> Plan:
    """`stage` as "stage2", "STUDENT:TEACHER", or "last" for the last of each network.

    Raises:
        UserError: no teacher; a stage that is not there, or gives no maps.
    """
    need_teacher(pair, "sp")
    term = SimilarityPreserving(align_one(pair, "sp", stage))
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"sp": (weight, term)}, epochs, optim)
