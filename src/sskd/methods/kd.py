"""Knowledge distillation: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015."""

from jaxtyping import Float
from torch import Tensor

from sskd.methods.parts import CrossEntropy, need_positive, need_teacher, row_kl, standardise
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Stage, Term
from sskd.views.pretext import Batch, Plain


class SoftTargets(Term):
    """T^2 KL(teacher || student) on view 0, averaged over the batch (section 2)."""

    student_taps = ("logits",)
    teacher_taps = ("logits",)

    def __init__(self, temperature: float = 4.0, standardised: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.standardised = standardised

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Logits are [B, V, K]."""
        target, prediction = teacher["logits"][:, 0], student["logits"][:, 0]
        if self.standardised:
            target, prediction = standardise(target), standardise(prediction)
        return row_kl(target, prediction, self.temperature).mean()


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    ce_weight: float = 0.1,
    kd_weight: float = 0.9,
    temperature: float = 4.0,
    standardised: bool = False,
) -> Plan:
    """0.1 cross-entropy + 0.9 soft targets at T = 4, the values of the CIFAR-100 tables.

    `standardised` compares z-scores of the logits (logit standardisation, whose authors take `kd_weight` 9 and
    `temperature` 2).

    Raises:
        UserError: there is no teacher, or the temperature is not above 0.
    """
    need_teacher(pair, "kd")
    need_positive(temperature=temperature)
    loss = {"ce": (ce_weight, CrossEntropy()), "kd": (kd_weight, SoftTargets(temperature, standardised))}
    return Plan((Stage("student", loss, ("student",), epochs, optim),), Plain())
