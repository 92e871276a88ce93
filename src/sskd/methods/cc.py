"""CC: Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019, arXiv 1904.01802."""

from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.logits import check_batch, need_positive
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import need_vector


class CCLoss(nn.Module):
    """Correlation congruence: products of consecutive images' absolute differences between two embeddings, batch mean.

    What the tables of the field call CC (Peng et al., ICCV 2019). The paper itself compares the B^2 kernel values
    (Taylor-expanded Gaussian) between the batch's images, and has published no code; the two are not the same loss.
    Both embeddings are trained: give the loss's parameters to the optimizer. 0 or more; usually weighed 0.02.

    Args:
        student_dim: width of the student's features.
        teacher_dim: width of the teacher's features.
        width: of the embeddings.

    Example:
        >>> loss = CCLoss(student_dim=64, teacher_dim=256)
        >>> loss(torch.rand(4, 64), torch.rand(4, 256)).shape
        torch.Size([])
    """

    def __init__(self, student_dim: int, teacher_dim: int, width: int = 128) -> None:
        super().__init__()
        self.embed_s, self.embed_t = nn.Linear(student_dim, width), nn.Linear(teacher_dim, width)

    def forward(self, student: Float[Tensor, "B D"], teacher: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
        """The loss of features.

        Raises:
            UserError: other numbers of images.
        """
        check_batch(student, teacher)
        delta: Tensor = (self.embed_s(student) - self.embed_t(teacher)).abs()
        return (delta[:-1] * delta[1:]).sum() / max(len(delta) - 1, 1)


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 0.02,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    width: int = 128,
) -> Plan:
    """`width` numbers for each image, by a linear layer on each side; both are trained.

    Raises:
        UserError: no teacher; a network without a linear classifier.
    """
    need_teacher(pair, "cc")
    need_positive(width=width)
    loss = CCLoss(need_vector(pair, "cc", "student"), need_vector(pair, "cc", "teacher"), width)
    term = LossTerm(loss, ("pooled", "pooled"), relates=True)
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"cc": (weight, term)}, epochs, optim)
