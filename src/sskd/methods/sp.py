"""SP: Tung, Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.logits import check_batch
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import align_one


class SPLoss(nn.Module):
    """Similarity preserving: || G_t - G_s ||_F^2 / B^2, G the inner products of a batch's images with each other.

    Tung, Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, equations 1 to 4; rows of G have unit length.
    0 or more; usually weighed 3000. Relates the images of a batch: with several processes gather their values first.

    Example:
        >>> maps = torch.rand(4, 8, 2, 2)
        >>> float(SPLoss()(maps, 2 * maps)) < 1e-12
        True
    """

    def forward(self, student: Float[Tensor, "B ..."], teacher: Float[Tensor, "B ..."]) -> Float[Tensor, ""]:
        """The loss of maps or features [B, ...]; the two sides' shapes need not agree.

        Raises:
            UserError: other numbers of images.
        """
        check_batch(student, teacher)
        return (gram(teacher) - gram(student)).square().mean()


def gram(values: Float[Tensor, "B ..."]) -> Float[Tensor, "B B"]:
    """Inner products of the images' values, each row of unit length."""
    flat = values.flatten(1)
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
    term = LossTerm(SPLoss(), align_one(pair, "sp", stage), relates=True)
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"sp": (weight, term)}, epochs, optim)
