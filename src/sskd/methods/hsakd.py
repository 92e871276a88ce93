"""HSAKD: Yang, An, Cai, Xu, "Hierarchical Self-supervised Augmented Knowledge Distillation", IJCAI 2021.

arXiv 2107.13715. Two stages. `branches`: on the frozen teacher, an auxiliary classifier at every stage learns the joint
labels (class, rotation), once for each teacher. `student`: branches of its own learn the teacher's at each stage. A
branch copies the stages that follow; the last stage's is another copy of that stage, at stride 1.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.methods.logits import need_positive, row_kl
from sskd.methods.parts import labels_and_kd, need_teacher, seeded, student_stage
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Side, Stage, Term
from sskd.methods.stages import Aligned, Scaled, align, scaled
from sskd.views.pretext import Batch
from sskd.views.rotations import Rotations


class JointTask(Term):
    """Cross-entropy of each of the teacher's branches on the joint labels of all four views, summed (equation 2)."""

    def __init__(self, taps: tuple[str, ...], branches: nn.ModuleDict) -> None:
        super().__init__()
        self.teacher_taps = taps
        self.borrowed = (branches,)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the views, summed over the branches."""
        joint = _joint(batch)
        losses = [F.cross_entropy(logits, joint) for logits in _branched(self, self.borrowed[0], teacher)]
        return torch.stack(losses).sum()

    def watch(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """`joint_accuracy` of the branch at the last stage."""
        logits = _branched(self, self.borrowed[0], teacher)[-1]
        return {"joint_accuracy": (logits.argmax(1) == _joint(batch)).float().mean()}


class Mimicry(Term):
    """T^2 KL(teacher || student) of each pair of branches, on all four views, summed over the stages (equation 4)."""

    def __init__(
        self, aligned: Aligned, branches: nn.ModuleDict, teacher_branches: nn.ModuleDict, temperature: float
    ) -> None:
        super().__init__()
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(*aligned, strict=True))
        self.branches = branches
        self.borrowed = (teacher_branches,)
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the views, summed over the stages."""
        pairs = zip(_branched(self, self.borrowed[0], teacher), _branched(self, self.branches, student), strict=True)
        return torch.stack([row_kl(t, s, self.temperature).mean() for t, s in pairs]).sum()


class AllViews(Term):
    """T^2 KL(teacher || student) of the class predictions on all four views (equation 5)."""

    student_taps = ("logits",)
    teacher_taps = ("logits",)

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the views."""
        t, s = (side["logits"].flatten(0, 1) for side in (teacher, student))
        return row_kl(t, s, self.temperature).mean()


def _branched(term: Term, branches: nn.Module, outputs: Outputs) -> list[Float[Tensor, "B*V 4*C"]]:
    """Logits of the joint labels, in at least fp32, from parts of networks, in the networks' precision."""
    with term.autocast():
        logits = [branch(outputs[tap].flatten(0, 1)) for tap, branch in branches.named_children()]
    return [values.to(torch.promote_types(values.dtype, torch.float32)) for values in logits]


def _joint(batch: Batch) -> Tensor:
    """The class of each (image, rotation): 4 x label + quarter turns."""
    return (4 * batch.labels[:, None] + batch.asked).flatten()


def _branches(pair: Pair, side: Side, taps: tuple[str, ...]) -> nn.ModuleDict:
    return nn.ModuleDict({tap: pair.tail(side, tap, 4 * pair.data.classes) for tap in taps})


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    mimicry: float = 1.0,
    views: float = 1.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    temperature: float = 3.0,
    branch_epochs: int | Scaled = Scaled(100),
    branch_lr: float = 0.05,
    nesterov: bool = True,
    stages: tuple[str, ...] | None = None,
) -> Plan:
    """Cross-entropy on the plain view + mimicry of the branches + KL of the predictions on all views, each with 1.

    `branch_epochs`, `branch_lr`: of the teacher's branches, x 0.1 at 30, 60 and 90 %. `nesterov`: both stages train
    with Nesterov's momentum, as the authors' do; else as `optim` says. `stages` as "stage2" or "STUDENT:TEACHER".

    Raises:
        UserError: no teacher; unequal stages; a network of which it is not known what follows a stage.
    """
    need_teacher(pair, "hsakd")
    length, notes = scaled("branch_epochs", branch_epochs, epochs)
    need_positive(temperature=temperature, branch_epochs=length, branch_lr=branch_lr)
    if nesterov and not optim.momentum:
        raise UserError(
            "hsakd trains with Nesterov's momentum, as its authors do, which needs an optim.momentum above 0. "
            "Give one, or say --options.nesterov false."
        )
    optim = replace(optim, nesterov=nesterov or optim.nesterov)
    aligned = align(pair, "hsakd", stages, known=pair.branch_taps)
    ours, theirs = (tuple(side) for side in zip(*aligned, strict=True))
    teacher_branches = seeded(lambda: _branches(pair, "teacher", theirs))
    schedule = Optim(lr=branch_lr, nesterov=optim.nesterov, milestones=(0.3, 0.6, 0.9))
    task = {"joint": (1.0, JointTask(theirs, teacher_branches))}
    first = Stage("branches", task, ("teacher_branches",), length, schedule, shared=True)
    loss = labels_and_kd(ce_weight, kd_weight) | {
        "mimicry": (mimicry, Mimicry(aligned, _branches(pair, "student", ours), teacher_branches, temperature)),
        "views": (views, AllViews(temperature)),
    }
    student = student_stage(loss, epochs, optim)
    return Plan((first, student), Rotations(), {"teacher_branches": teacher_branches}, notes)
