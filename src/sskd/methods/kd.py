"""Knowledge distillation: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015."""

from sskd.methods.logits import need_positive
from sskd.methods.parts import CrossEntropy, SoftTargets, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan, Term


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
    loss: dict[str, tuple[float, Term]] = {
        "ce": (ce_weight, CrossEntropy()),
        "kd": (kd_weight, SoftTargets(temperature, standardised)),
    }
    return student_plan(loss, epochs, optim)
