"""FitNet: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550."""

from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.adapters import Regressor, match
from sskd.methods.parts import initialisation, labels_and_kd, need_teacher, student_stage
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.methods.stages import align_one, need_map
from sskd.views.pretext import Batch, Plain


class Hint(Term):
    """Mean squared error between the teacher's map and a convolution of the student's (equation 3; mean, no 1/2)."""

    def __init__(self, stage: tuple[str, str], regressor: nn.Module) -> None:
        super().__init__()
        self.student_taps, self.teacher_taps = (stage[0],), (stage[1],)
        self.regressor = regressor

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Maps are [B, V, C, H, W]."""
        guess, hint = match(self.regressor(student[self.student_taps[0]][:, 0]), teacher[self.teacher_taps[0]][:, 0])
        return (guess - hint).square().mean()


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 100.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    stage: str = "stage2",
    init_epochs: int = 0,
    init_lr: float | None = None,
) -> Plan:
    """The hint beside the labels, as the tables of the field have it.

    `init_epochs` above 0 is the paper's own way: so many epochs on the hint alone, then none of it. `stage` as
    "stage2", "STUDENT:TEACHER" or "last".

    Raises:
        UserError: no teacher; a stage that is not there, or gives no maps.
    """
    need_teacher(pair, "fitnet")
    s, t = align_one(pair, "fitnet", stage)
    term = Hint((s, t), Regressor(need_map(pair, "fitnet", "student", s), need_map(pair, "fitnet", "teacher", t)))
    loss = labels_and_kd(ce_weight, kd_weight)
    if not init_epochs:
        return Plan((student_stage(loss | {"hint": (weight, term)}, epochs, optim),), Plain())
    init = initialisation(pair, {"hint": (weight, term)}, init_epochs, init_lr, optim)
    return Plan((init, student_stage(loss, epochs, optim)), Plain())
