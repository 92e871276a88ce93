"""AB: Heo et al., "Knowledge Transfer via Distillation of Activation Boundaries", AAAI 2019, arXiv 1811.03233."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.adapters import Map, Regressor, StageLoss, check_stages, match
from sskd.methods.logits import need_positive
from sskd.methods.parts import LossTerm, initialisation, labels_and_kd, need_teacher, student_stage
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import Aligned, Scaled, align, need_map, scaled
from sskd.views.pretext import Plain


class ABLoss(StageLoss):
    """Activation boundaries: pushes each of the student's values to the teacher's side of zero, by a margin.

    Heo et al., AAAI 2019, equation 3. Of maps before the activations. Stage i of L counts 2^(i - L + 1) x 3 / 1000,
    summed over a map and averaged over the batch, as in the authors' code. Where shapes differ a convolution with
    batch norm comes between: give the loss's parameters to the optimizer. 0 or more.

    Args:
        student_shapes: channels, height and width of the student's maps, stage by stage.
        teacher_shapes: of the teacher's.
        margin: above 0.

    Example:
        >>> loss = ABLoss(student_shapes=[(8, 4, 4)], teacher_shapes=[(16, 4, 4)])
        >>> loss([torch.randn(2, 8, 4, 4)], [torch.randn(2, 16, 4, 4)]).shape
        torch.Size([])
    """

    def __init__(self, student_shapes: Sequence[Map], teacher_shapes: Sequence[Map], margin: float = 1.0) -> None:
        super().__init__()
        check_stages(student_shapes, teacher_shapes)
        need_positive(margin=margin)
        shapes = zip(student_shapes, teacher_shapes, strict=True)
        self.connectors = nn.ModuleList(nn.Identity() if s == t else Regressor(s, t, relu=False) for s, t in shapes)
        self.margin = margin

    def compare(
        self, i: int, student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B D h w"]
    ) -> Float[Tensor, ""]:
        """One stage."""
        s, t = match(self.connectors[i](student), teacher)
        lift = (s - self.margin).square() * ((s <= self.margin) & (t > 0))
        lower = (s + self.margin).square() * ((s > -self.margin) & (t <= 0))
        return (lift + lower).sum() / len(s) * 2.0 ** (i - len(self.connectors) + 1) * 3 / 1000


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 1.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    margin: float = 1.0,
    init_epochs: int | Scaled = Scaled(30),
    init_lr: float | None = None,
    stages: tuple[str, ...] | None = None,
) -> Plan:
    """`init_epochs` on the boundaries alone, at one rate (`init_lr`, else the student's); then labels (and KD) alone.

    Reads `stageK.pre`. A stage that ends without an activation, such as MobileNetV2's, counts as it is, and the plan's
    notes name it.

    Raises:
        UserError: no teacher; stages that cannot be compared, or whose activations cannot be found.
    """
    need_teacher(pair, "ab")
    need_positive(margin=margin)
    aligned = align(pair, "ab", stages, ".pre")
    ours = [need_map(pair, "ab", "student", tap) for tap, _ in aligned]
    theirs = [need_map(pair, "ab", "teacher", tap) for _, tap in aligned]
    term = LossTerm(ABLoss(ours, theirs, margin), aligned)
    length, notes = scaled("init_epochs", init_epochs, epochs)
    init = initialisation(pair, {"ab": (weight, term)}, length, init_lr, optim)
    student = student_stage(labels_and_kd(ce_weight, kd_weight), epochs, optim)
    return Plan((init, student), Plain(), notes=(*notes, *_notes(pair, aligned)))


def _notes(pair: Pair, aligned: Aligned) -> tuple[str, ...]:
    """Which of the stages that are compared end without an activation."""
    found = dict[str, list[str]]()
    for side, taps in zip(("student", "teacher"), zip(*aligned, strict=True), strict=True):
        found[side] = [tap.removesuffix(".pre") for tap in taps if tap in pair.linear.get(side, ())]
    named = " and ".join(f"{', '.join(stages)} of the {side}" for side, stages in found.items() if stages)
    return (f"ab: {named} end without an activation; their values are compared as they are.",) if named else ()
