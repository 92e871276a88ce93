"""ONE: Lan, Zhu, Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", NeurIPS 2018, arXiv 1806.04606.

No teacher: branches that copy the student's last stage, and a gate, make an ensemble that teaches each of them. The
student that is kept is the network itself, the first branch.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.methods.logits import need_positive, row_kl
from sskd.methods.parts import CrossEntropy, student_plan
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.methods.stages import Scaled, scaled, stages_of
from sskd.views.pretext import Batch


class NativeEnsemble(Term):
    """Cross-entropy of the other branches and of the ensemble, and T^2 KL(ensemble || branch) of every branch.

    KL counts exp(-5 (1 - e / ramp_up)^2) in epoch e = 0, 1 ... of the first `ramp_up`, then 1 (the released code).
    The ensemble is sum_i g_i z_i, the gate g = softmax(ReLU(BN(FC))) of the last shared map's mean (equations 4-8).
    It is a constant where it teaches.
    """

    def __init__(self, tap: str, branches: list[nn.Module], channels: int, temperature: float, ramp_up: float) -> None:
        super().__init__()
        self.student_taps = (tap, "logits")
        self.branches = nn.ModuleList(branches)
        count = len(branches) + 1
        self.gate = nn.Sequential(nn.Linear(channels, count), nn.BatchNorm1d(count), nn.ReLU(), nn.Softmax(1))
        self.temperature = temperature
        self.ramp_up = ramp_up

    def _all(self, student: Outputs) -> tuple[Float[Tensor, "n B K"], Float[Tensor, "B K"]]:
        shared = student[self.student_taps[0]][:, 0]
        with self.autocast():
            copies = [branch(shared) for branch in self.branches]
        logits = torch.stack([values.to(shared.dtype) for values in (student["logits"][:, 0], *copies)])
        gate = self.gate(shared.mean((2, 3)))
        return logits, (gate.T[..., None] * logits).sum(0)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """The sum; each part a mean over the batch. The first branch's cross-entropy is a term of its own."""
        logits, ensemble = self._all(student)
        loss = F.cross_entropy(ensemble, batch.labels)
        share = self._share(batch.epoch.to(loss.dtype))
        for i, branch in enumerate(logits):
            loss = loss + share * row_kl(ensemble.detach(), branch, self.temperature).mean()
            loss = loss + F.cross_entropy(branch, batch.labels) if i else loss
        return loss

    def _share(self, epoch: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """How much of its weight KL has in an epoch."""
        progress = (epoch / self.ramp_up).clamp(max=1) if self.ramp_up else torch.ones_like(epoch)
        return torch.exp(-5 * (1 - progress) ** 2)

    def watch(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """`ensemble_top1`: the ensemble's accuracy."""
        ensemble = self._all(student)[1]
        return {"ensemble_top1": (ensemble.argmax(1) == batch.labels).float().mean()}


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 1.0,
    ce_weight: float = 1.0,
    branches: int = 3,
    temperature: float = 3.0,
    ramp_up: float | Scaled = Scaled(80, of=300),
) -> Plan:
    """`branches` in all, the student's own last stage among them; KL rises to its weight over `ramp_up` epochs.

    A teacher is not read.

    Raises:
        UserError: fewer than two branches or stages; a negative ramp-up; a network whose last stage cannot be copied.
    """
    need_positive(temperature=temperature)
    length, notes = scaled("ramp_up", ramp_up, epochs)
    if length < 0:
        raise UserError(f"ramp_up is a number of epochs, 0 or more; got {length}.")
    if branches < 2:
        raise UserError(f"one needs 2 branches or more, the student's own among them; got {branches}.")
    stages = stages_of(pair.student)
    if len(stages) < 2:
        raise UserError(
            f"one branches before the student's last stage; of this student {len(stages)} are known. Use a network of "
            "the zoo (`sskd list models`), or another method."
        )
    tap, classes = stages[-2], pair.data.classes
    copies = [pair.tail("student", tap, classes) for _ in range(branches - 1)]
    term = NativeEnsemble(tap, copies, pair.student[tap][0], temperature, length)
    return student_plan({"ce": (ce_weight, CrossEntropy()), "ensemble": (weight, term)}, epochs, optim, notes)
