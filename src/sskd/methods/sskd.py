"""SSKD: Xu, Liu, Li, Loy, "Knowledge Distillation Meets Self-Supervision", ECCV 2020, arXiv 2006.07114.

Two stages. `head`: on the frozen teacher a small head learns to tell, for each transformed view, which image it comes
from. `student`: labels, the teacher's predictions on plain and on transformed views, and the teacher's similarity
structure; of the last two, the rows on which the teacher is most wrong can be left out (selective transfer).
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.errors import UserError, unknown
from sskd.methods.parts import (
    CrossEntropy,
    SoftTargets,
    error_level,
    masked_mean,
    need_positive,
    need_teacher,
    row_kl,
    seeded,
    select,
)
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Stage, Term
from sskd.methods.stages import need_vector
from sskd.views import PRETEXTS
from sskd.views.pretext import Batch, Pretext

# The published sources disagree on the last two: the released code, the arXiv version, the supplement.
PRESETS: dict[str, dict[str, float]] = {
    "released": {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0},
    "arxiv": {"ce": 0.1, "kd": 0.9, "tf": 10.0, "ss": 2.7},
    "supplement": {"ce": 0.1, "kd": 0.9, "tf": 5.0, "ss": 3.0},
}


class HeadTask(Term):
    """Cross-entropy of the teacher's head on the pretext's question, without temperature."""

    teacher_taps = ("pooled",)
    relates = True

    def __init__(self, pretext: Pretext, teacher_head: nn.Module) -> None:
        super().__init__()
        self.pretext = pretext
        self.borrowed = (teacher_head,)  # a tuple: the plan owns the head, this term does not

    def _logits(self, teacher: Outputs) -> Float[Tensor, "M K"]:
        return self.pretext.logits(self.borrowed[0](teacher["pooled"]))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the questions."""
        return F.cross_entropy(self._logits(teacher), self.pretext.target(batch))

    def watch(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`ss_accuracy`: how many questions the head answers rightly."""
        return {"ss_accuracy": _accuracy(self._logits(teacher), self.pretext.target(batch))}


class Transformed(Term):
    """L_T: T^2 KL(teacher || student) of the class predictions on the transformed views."""

    student_taps = ("logits",)
    teacher_taps = ("logits",)
    relates = True

    def __init__(self, temperature: float, ratio: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.ratio = ratio

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the rows that selective transfer keeps; a row's right answer is the image's label."""
        target, prediction = (side["logits"][:, 1:].flatten(0, 1) for side in (teacher, student))
        return masked_mean(row_kl(target, prediction, self.temperature), self._kept(teacher, batch))

    def _kept(self, teacher: Outputs, batch: Batch) -> Tensor:
        logits = teacher["logits"][:, 1:]
        labels = batch.labels.repeat_interleave(logits.shape[1])
        return select(error_level(logits.flatten(0, 1), labels), self.ratio)

    def watch(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`tf_kept`: the fraction of rows that are transferred."""
        return {"tf_kept": self._kept(teacher, batch).float().mean()} if teacher else {}


class Similarity(Term):
    """L_ss: T^2 KL(teacher || student) of the pretext's answers, T = 0.5. Owns the student's head."""

    student_taps = ("pooled",)
    teacher_taps = ("pooled",)
    relates = True

    def __init__(
        self, pretext: Pretext, head: nn.Module, teacher_head: nn.Module, temperature: float, ratio: float
    ) -> None:
        super().__init__()
        self.pretext = pretext
        self.head = head
        self.borrowed = (teacher_head,)
        self.temperature = temperature
        self.ratio = ratio if pretext.selective else 1.0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the rows that selective transfer keeps; a row's right answer is its own image."""
        target = self.pretext.logits(self.borrowed[0](teacher["pooled"]))
        prediction = self.pretext.logits(self.head(student["pooled"]))
        return masked_mean(row_kl(target, prediction, self.temperature), self._kept(target, batch))

    def _kept(self, target: Float[Tensor, "M K"], batch: Batch) -> Tensor:
        return select(error_level(target, self.pretext.target(batch)), self.ratio)

    def watch(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`ss_accuracy` of the student's head; `ss_kept`, the fraction of rows that are transferred."""
        seen = {"ss_accuracy": _accuracy(self.pretext.logits(self.head(student["pooled"])), self.pretext.target(batch))}
        if teacher:
            target = self.pretext.logits(self.borrowed[0](teacher["pooled"]))
            seen["ss_kept"] = self._kept(target, batch).float().mean()
        return seen


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    preset: Literal["released", "arxiv", "supplement"] = "released",
    ce: float | None = None,
    kd: float | None = None,
    tf: float | None = None,
    ss: float | None = None,
    temperature: float = 4.0,
    ss_temperature: float = 0.5,
    ratio_tf: float = 1.0,
    ratio_ss: float = 0.75,
    head_epochs: int = 60,
    head_lr: float = 0.05,
    pretext: str = "contrastive",
) -> Plan:
    """Head stage, then student stage. `preset` names the four weights; `ce`, `kd`, `tf`, `ss` override one each.

    `ratio_tf`, `ratio_ss`: how many of the wrong rows are transferred, most nearly right first. `head_epochs`,
    `head_lr`: the head's schedule, divided by 10 at one half and three quarters.

    Raises:
        UserError: no teacher, a network without a linear classifier, an unknown preset, a ratio outside 0..1.
    """
    need_teacher(pair, "sskd")
    need_positive(temperature=temperature, ss_temperature=ss_temperature, head_epochs=head_epochs, head_lr=head_lr)
    if preset not in PRESETS:
        raise UserError(f"preset is one of {', '.join(PRESETS)}; got {preset!r}.")
    for name, ratio in (("ratio_tf", ratio_tf), ("ratio_ss", ratio_ss)):
        if not 0 <= ratio <= 1:
            raise UserError(f"{name} is the share of wrong rows to transfer, from 0 to 1; got {ratio}.")
    if pretext not in PRETEXTS:
        raise unknown("pretext", pretext, PRETEXTS)
    task = PRETEXTS[pretext]()
    widths = {side: need_vector(pair, "sskd", side) for side in ("teacher", "student")}
    teacher_head = seeded(lambda: task.head(widths["teacher"], pair.data))
    student_head = task.head(widths["student"], pair.data)
    given = {"ce": ce, "kd": kd, "tf": tf, "ss": ss}
    weights = PRESETS[preset] | {name: weight for name, weight in given.items() if weight is not None}
    terms: dict[str, Term] = {
        "ce": CrossEntropy(),
        "kd": SoftTargets(temperature),
        "tf": Transformed(temperature, ratio_tf),
        "ss": Similarity(task, student_head, teacher_head, ss_temperature, ratio_ss),
    }
    head_optim = Optim(lr=head_lr, milestones=(0.5, 0.75))
    head = Stage(
        "head",
        {"head": (1.0, HeadTask(task, teacher_head))},
        ("teacher_head",),
        head_epochs,
        head_optim,
        True,
    )
    loss = {name: (weights[name], term) for name, term in terms.items()}
    student = Stage("student", loss, ("student", "ss"), epochs, optim)
    return Plan((head, student), task, {"teacher_head": teacher_head})


def _accuracy(logits: Float[Tensor, "M K"], target: Tensor) -> Tensor:
    """Share of right answers; questions without one (target -1, as of an index that is not there) do not count."""
    right = error_level(logits, target.clamp(min=0)) == 0
    return masked_mean(right.float(), target >= 0)
