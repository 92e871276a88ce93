"""SSKD: Xu, Liu, Li, Loy, "Knowledge Distillation Meets Self-Supervision", ECCV 2020, arXiv 2006.07114.

Two stages. `head`: on the frozen teacher a small head learns to tell, for each transformed view, which image it comes
from. `student`: labels, the teacher's predictions on plain and on transformed views, and the teacher's similarity
structure; of the last two, the rows on which the teacher is most wrong can be left out (selective transfer).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.errors import UserError
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
from sskd.methods.stages import Scaled, need_vector, scaled
from sskd.views.find import pretext_of
from sskd.views.pretext import Batch, Drawn, Pretext

# The published sources disagree on the last two: the released code, the arXiv version, the supplement.
PRESETS: dict[str, dict[str, float]] = {
    "released": {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0},
    "arxiv": {"ce": 0.1, "kd": 0.9, "tf": 10.0, "ss": 2.7},
    "supplement": {"ce": 0.1, "kd": 0.9, "tf": 5.0, "ss": 3.0},
}


class Asking(Term):
    """A term that asks a head the pretext's question. `key`: its name in the stage, under which its draws come back."""

    key: str

    def __init__(self, pretext: Pretext, teacher_head: nn.Module) -> None:
        super().__init__()
        self.pretext = pretext
        self.borrowed = (teacher_head,)  # a tuple: the plan owns the head, this term does not
        self.relates, self.needs_index = pretext.relates, pretext.needs_index

    def draw(self, generator: torch.Generator, index: Int64[Tensor, "B"]) -> Drawn:
        """What the pretext draws."""
        return self.pretext.draw(generator, index)

    def answers(self, head: nn.Module, outputs: Outputs, batch: Batch) -> Float[Tensor, "M K"]:
        """A head's logits."""
        return self.pretext.answers(head, outputs["pooled"], batch.draws.get(self.key, {}))

    def target(self, batch: Batch) -> Int64[Tensor, "M"]:
        """The right answers."""
        return self.pretext.target(batch, batch.draws.get(self.key, {}))


class HeadTask(Asking):
    """Cross-entropy of the teacher's head on the pretext's question, without temperature."""

    teacher_taps = ("pooled",)
    key = "head"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the questions."""
        return F.cross_entropy(self.answers(self.borrowed[0], teacher, batch), self.target(batch))

    def watch(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`ss_accuracy`: how many questions the head answers rightly."""
        return {"ss_accuracy": _accuracy(self.answers(self.borrowed[0], teacher, batch), self.target(batch))}


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


class Similarity(Asking):
    """L_ss: T^2 KL(teacher || student) of the pretext's answers, T = 0.5. Owns the student's head.

    `numbers`: the number of each of the student's images among those that the teacher's head was trained on; None
    where they are the same.
    """

    student_taps = ("pooled",)
    teacher_taps = ("pooled",)
    key = "ss"

    def __init__(
        self,
        pretext: Pretext,
        head: nn.Module,
        teacher_head: nn.Module,
        temperature: float,
        ratio: float,
        numbers: Int64[Tensor, "N"] | None = None,
    ) -> None:
        super().__init__(pretext, teacher_head)
        self.head = head
        self.temperature = temperature
        self.ratio = ratio if pretext.selective else 1.0
        self.numbers = numbers

    def draw(self, generator: torch.Generator, index: Int64[Tensor, "B"]) -> Drawn:
        """What the pretext draws, for images as the teacher's head numbers them."""
        return super().draw(generator, index if self.numbers is None else self.numbers[index])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the rows; of a selective pretext's, over those kept: a row's right answer is its own image."""
        target = self.answers(self.borrowed[0], teacher, batch)
        rows = row_kl(target, self.answers(self.head, student, batch), self.temperature)
        return masked_mean(rows, self._kept(target, batch)) if self.pretext.selective else rows.mean()

    def _kept(self, target: Float[Tensor, "M K"], batch: Batch) -> Tensor:
        return select(error_level(target, self.target(batch)), self.ratio)

    def watch(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`ss_accuracy` of the student's head; of a selective pretext `ss_kept`, the fraction that is transferred."""
        seen = {"ss_accuracy": _accuracy(self.answers(self.head, student, batch), self.target(batch))}
        if teacher and self.pretext.selective:
            target = self.answers(self.borrowed[0], teacher, batch)
            seen["ss_kept"] = self._kept(target, batch).float().mean()
        return seen


def need_ratios(**ratios: float) -> None:
    """The options of selective transfer, by name.

    Raises:
        UserError: one is outside of 0..1.
    """
    for name, ratio in ratios.items():
        if not 0 <= ratio <= 1:
            raise UserError(f"{name} is the share of wrong rows to transfer, from 0 to 1; got {ratio}.")


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
    head_epochs: int | Scaled = Scaled(60),
    head_lr: float = 0.05,
    pretext: str = "contrastive",
    transformations: tuple[str, ...] | str = ("rotation",),
    answers: int = 65536,
) -> Plan:
    """Head stage, then student stage. `preset` names the four weights; `ce`, `kd`, `tf`, `ss` override one each.

    `ratio_tf`, `ratio_ss`: how many of the wrong rows are transferred, most nearly right first. `head_epochs`,
    `head_lr`: the head's schedule, divided by 10 at one half and three quarters.

    `pretext`: the question that the heads are asked, by name or as MODULE:CLASS. `transformations`: what the views are
    that contrastive and exemplar ask about; a name, several of which each view draws one, or "all". `answers`: where
    exemplar would have more than so many, it draws so many in each step. Nothing is filtered but what contrastive asks.

    Raises:
        UserError: no teacher, a network without a linear classifier, an unknown preset, a ratio outside 0..1, a
            pretext or transformations that do not fit each other or the data.
    """
    need_teacher(pair, "sskd")
    length, said = scaled("head_epochs", head_epochs, epochs)
    need_positive(temperature=temperature, ss_temperature=ss_temperature, head_epochs=length, head_lr=head_lr)
    if preset not in PRESETS:
        raise UserError(f"preset is one of {', '.join(PRESETS)}; got {preset!r}.")
    need_ratios(ratio_tf=ratio_tf, ratio_ss=ratio_ss)
    need_positive(answers=answers)
    task, notes = pretext_of(pretext, transformations, answers, pair.data)
    widths = {side: need_vector(pair, "sskd", side) for side in ("teacher", "student")}
    teacher_head = seeded(lambda: task.head(widths["teacher"], pair.data))
    student_head = task.head(widths["student"], pair.data)
    notes += task.notes({"teacher": teacher_head, "student": student_head})
    given = {"ce": ce, "kd": kd, "tf": tf, "ss": ss}
    weights = PRESETS[preset] | {name: weight for name, weight in given.items() if weight is not None}
    terms: dict[str, Term] = {
        "ce": CrossEntropy(),
        "kd": SoftTargets(temperature),
        "tf": Transformed(temperature, ratio_tf),
        "ss": Similarity(task, student_head, teacher_head, ss_temperature, ratio_ss, pair.data.numbers),
    }
    head_optim = Optim(lr=head_lr, milestones=(0.5, 0.75))
    head = Stage(
        "head",
        {"head": (1.0, HeadTask(task, teacher_head))},
        ("teacher_head",),
        length,
        head_optim,
        True,
    )
    loss = {name: (weights[name], term) for name, term in terms.items()}
    student = Stage("student", loss, ("student", "ss"), epochs, optim)
    return Plan((head, student), task, {"teacher_head": teacher_head}, (*said, *notes))


def _accuracy(logits: Float[Tensor, "M K"], target: Int64[Tensor, "M"]) -> Tensor:
    """Share of right answers."""
    return (error_level(logits, target) == 0).float().mean()
