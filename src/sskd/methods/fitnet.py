"""FitNet: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550."""

from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.adapters import Map, Regressor, check_map, match
from sskd.methods.parts import LossTerm, initialisation, labels_and_kd, need_teacher, student_stage
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import align_one, need_map
from sskd.views.pretext import Plain


class FitNetLoss(nn.Module):
    """Hint: mean squared error between the teacher's map and a convolution of the student's.

    Romero et al., "FitNets", ICLR 2015, equation 3 (mean, without 1/2). The convolution is trained: give the loss's
    parameters to the optimizer. 0 or more; usually weighed 100.

    Args:
        student_shape: channels, height and width of the student's map.
        teacher_shape: of the teacher's.

    Example:
        >>> loss = FitNetLoss(student_shape=(16, 8, 8), teacher_shape=(32, 4, 4))
        >>> loss(torch.rand(2, 16, 8, 8), torch.rand(2, 32, 4, 4)).shape
        torch.Size([])
    """

    def __init__(self, student_shape: Map, teacher_shape: Map) -> None:
        super().__init__()
        self.regressor = Regressor(student_shape, teacher_shape)

    def forward(self, student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B D h w"]) -> Float[Tensor, ""]:
        """The loss of one map of each network.

        Raises:
            UserError: values that are no maps, or of other batches.
        """
        check_map(student, teacher)
        guess, hint = match(self.regressor(student), teacher)
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
    hint = FitNetLoss(need_map(pair, "fitnet", "student", s), need_map(pair, "fitnet", "teacher", t))
    term = LossTerm(hint, (s, t))
    loss = labels_and_kd(ce_weight, kd_weight)
    if not init_epochs:
        return Plan((student_stage(loss | {"hint": (weight, term)}, epochs, optim),), Plain())
    init = initialisation(pair, {"hint": (weight, term)}, init_epochs, init_lr, optim)
    return Plan((init, student_stage(loss, epochs, optim)), Plain())
