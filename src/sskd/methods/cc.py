"""CC: Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019, arXiv 1904.01802."""

from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.parts import labels_and_kd, need_positive, need_teacher, student_plan
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.methods.stages import need_vector
from sskd.views.pretext import Batch


class Congruence(Term):
    """Products of consecutive images' absolute differences between the two embeddings, batch mean.

    What the tables of the field call CC. The paper itself compares the B^2 kernel values (Taylor-expanded Gaussian)
    between the batch's images, and has published no code; the two are not the same loss.
    """

    student_taps = ("pooled",)
    teacher_taps = ("pooled",)
    relates = True

    def __init__(self, student: int, teacher: int, width: int) -> None:
        super().__init__()
        self.embed_s, self.embed_t = nn.Linear(student, width), nn.Linear(teacher, width)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Features are [B, V, D]."""
        delta: Tensor = (self.embed_s(student["pooled"][:, 0]) - self.embed_t(teacher["pooled"][:, 0])).abs()
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
    term = Congruence(need_vector(pair, "cc", "student"), need_vector(pair, "cc", "teacher"), width)
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"cc": (weight, term)}, epochs, optim)
