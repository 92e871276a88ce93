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

from sskd.methods.logits import error_level, need_positive, row_kl, select, selective_kl
from sskd.methods.parts import CrossEntropy, SoftTargets, need_teacher, seeded
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Stage, Term
from sskd.methods.sskd_loss import need_ratios, weights_of
from sskd.methods.stages import Scaled, need_vector, scaled
from sskd.views.find import pretext_of
from sskd.views.pretext import Batch, Drawn, Pretext


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
        return selective_kl(prediction, target, self._answers(teacher, batch), self.temperature, self.ratio)

    def _answers(self, teacher: Outputs, batch: Batch) -> Int64[Tensor, "M"]:
        return batch.labels.repeat_interleave(teacher["logits"].shape[1] - 1)

    def _kept(self, teacher: Outputs, batch: Batch) -> Tensor:
        level = error_level(teacher["logits"][:, 1:].flatten(0, 1), self._answers(teacher, batch))
        return select(level, self.ratio)

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
        prediction = self.answers(self.head, student, batch)
        if not self.pretext.selective:
            return row_kl(target, prediction, self.temperature).mean()
        return selective_kl(prediction, target, self.target(batch), self.temperature, self.ratio)

    def _kept(self, target: Float[Tensor, "M K"], batch: Batch) -> Tensor:
        return select(error_level(target, self.target(batch)), self.ratio)

    def watch(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`ss_accuracy` of the student's head; of a selective pretext `ss_kept`, the fraction that is transferred."""
        seen = {"ss_accuracy": _accuracy(self.answers(self.head, student, batch), self.target(batch))}
        if teacher and self.pretext.selective:
            target = self.answers(self.borrowed[0], teacher, batch)
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
    need_ratios(ratio_tf=ratio_tf, ratio_ss=ratio_ss)
    need_positive(answers=answers)
    task, notes = pretext_of(pretext, transformations, answers, pair.data)
    widths = {side: need_vector(pair, "sskd", side) for side in ("teacher", "student")}
    teacher_head = seeded(lambda: task.head(widths["teacher"], pair.data))
    student_head = task.head(widths["student"], pair.data)
    notes += task.notes({"teacher": teacher_head, "student": student_head})
    weights = weights_of(preset, {"ce": ce, "kd": kd, "tf": tf, "ss": ss})
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
