"""CRD: Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sskd.errors import UserError
from sskd.methods.crd_loss import CRDLoss, CRDQueueLoss
from sskd.methods.logits import need_positive
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Outputs, Pair, Plan
from sskd.methods.stages import need_vector
from sskd.views.pretext import Batch


class Contrast(LossTerm):
    """CRD on the classifiers' inputs; what it remembers of a step is stored after the backward pass."""

    def __init__(self, loss: CRDLoss | CRDQueueLoss) -> None:
        super().__init__(loss, ("pooled", "pooled"), relates=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """The loss."""
        return self.remembering(student, teacher, batch)[0]


class Banked(Contrast):
    """Remembers every training image."""

    needs_index = True
    loss: CRDLoss

    def draw(self, generator: torch.Generator, index: Int64[Tensor, "B"]) -> dict[str, Tensor]:
        """`rows`: see `CRDLoss.draw`."""
        return {"rows": self.loss.draw(generator)}

    def remembering(
        self, student: Outputs, teacher: Outputs, batch: Batch
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss; the embeddings and Z."""
        return self.loss.compute(*self.values(student, teacher), batch.index, batch.draws["crd"]["rows"])

    def update(self, seen: Mapping[str, Tensor], batch: Batch) -> None:
        """Move the batch's rows."""
        self.loss.update(seen, batch.index)


class Queue(Contrast):
    """Remembers the embeddings of the last images alone."""

    loss: CRDQueueLoss

    def remembering(
        self, student: Outputs, teacher: Outputs, batch: Batch
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss; the embeddings and Z."""
        return self.loss.compute(*self.values(student, teacher), batch.labels)

    def update(self, seen: Mapping[str, Tensor], batch: Batch) -> None:
        """Put the batch in the place of the oldest rows."""
        self.loss.update(seen, batch.labels)


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 0.8,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    negatives: int = 16384,
    temperature: float = 0.07,
    momentum: float = 0.5,
    width: int = 128,
    queue: int = 0,
) -> Plan:
    """One term on the classifiers' inputs, with two banks of N x `width` numbers, or two queues of `queue` rows.

    Raises:
        UserError: no teacher; a network without a linear classifier; one class; values outside their range.
    """
    need_teacher(pair, "crd")
    need_positive(negatives=negatives, temperature=temperature, width=width)
    if not 0 <= momentum < 1:
        raise UserError(f"momentum is the share of a remembered row that stays, from 0 to below 1; got {momentum}.")
    if queue < 0:
        raise UserError(f"queue is a number of rows, 0 for a row for each image; got {queue}.")
    widths = need_vector(pair, "crd", "student"), need_vector(pair, "crd", "teacher")
    if queue:
        remembering = Queue(CRDQueueLoss(*widths, queue, width, temperature))
        return _planned(remembering, weight, ce_weight, kd_weight, epochs, optim, ())
    labels = pair.data.labels
    if not len(labels):
        raise UserError(
            "crd remembers a row for each training image; how many there are is not known (of a stream, or without "
            "labels of all of them). Leave --reading.stream out, give a Distiller labels, or remember the last images "
            "alone: --options.queue 16384."
        )
    counts = labels.bincount()
    others = len(labels) - int(counts.max())
    if not others:
        raise UserError(
            f"crd contrasts an image with those of other classes, and all {len(labels):,} training images are of one "
            "class. Check the labels (`sskd data check`), or choose another method."
        )
    notes = (
        (
            f"crd: {negatives:,} negatives were asked for, and for the largest class there are {others:,} images of "
            "others; all of them are used.",
        )
        if others < negatives
        else ()
    )
    term = Banked(CRDLoss(*widths, labels, width, negatives, temperature, momentum))
    return _planned(term, weight, ce_weight, kd_weight, epochs, optim, notes)


def _planned(
    term: Banked | Queue,
    weight: float,
    ce_weight: float,
    kd_weight: float,
    epochs: int,
    optim: Optim,
    notes: tuple[str, ...],
) -> Plan:
    rows, width = term.loss.memory_student.shape
    mebibytes = 2 * term.loss.memory_student.nbytes / 2**20
    kind = "queues" if isinstance(term, Queue) else "banks"
    size = f"crd: two {kind} of {rows:,} x {width} numbers take {mebibytes:,.1f} MiB."
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"crd": (weight, term)}, epochs, optim, (size, *notes))
