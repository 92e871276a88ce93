"""CRD: Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.methods.parts import labels_and_kd, need_positive, need_teacher, student_plan
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Term
from sskd.methods.stages import need_vector
from sskd.views.pretext import Batch

_EPS = 1e-7


class Contrast(Term):
    """Noise-contrastive estimation between the two networks' embeddings (equations 17-19), in both directions.

    An image's embedding by one network is scored, P = exp(z . w / T) / Z, against what is remembered of the other: its
    positive, and K rows of other classes. h = P / (P + K / N); the loss is -log h of the positive and -log(1 - h) of
    each negative, summed; batch mean. Z is the mean score of the first batch times N, and stays.

    `labels` are the classes of the N remembered rows; rows are drawn at random to begin with.
    """

    student_taps = ("pooled",)
    teacher_taps = ("pooled",)
    relates = True
    memory_student: Tensor
    memory_teacher: Tensor
    labels: Tensor
    normaliser: Tensor

    def __init__(self, widths: tuple[int, int], width: int, labels: Int64[Tensor, "N"], temperature: float) -> None:
        super().__init__()
        self.embed_s, self.embed_t = (nn.Linear(dim, width) for dim in widths)
        bound = math.sqrt(3 / width)
        for name in ("memory_student", "memory_teacher"):
            self.register_buffer(name, torch.empty(len(labels), width).uniform_(-bound, bound))
        self.register_buffer("labels", labels.clone())
        self.register_buffer("normaliser", torch.full((2,), -1.0))  # Z of the student's and of the teacher's scores
        self.temperature = temperature

    def embedded(self, student: Outputs, teacher: Outputs) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]]:
        """Both networks' embeddings, of unit length."""
        values = self.embed_s(student["pooled"][:, 0]), self.embed_t(teacher["pooled"][:, 0])
        return F.normalize(values[0]), F.normalize(values[1])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """The loss."""
        return self.remembering(student, teacher, batch)[0]

    def contrasted(
        self,
        embedded: tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]],
        positives: tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]],
        rows: tuple[Float[Tensor, "M E"], Float[Tensor, "M E"]],
        count: Float[Tensor, "B M"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "2"]]:
        """The loss and Z. `positives` and `rows` are of the other network; `count`: how often a row is a negative."""
        size, losses, normalisers = len(self.labels), [], []
        negatives = count.sum(1)
        noise = negatives / size
        for i in range(2):
            positive = ((embedded[i] * positives[i]).sum(1) / self.temperature).exp()
            scores = (embedded[i] @ rows[i].T / self.temperature).exp()
            mean = ((scores * count).sum() + positive.sum()) / (negatives + 1).sum()
            z = torch.where(self.normaliser[i] > 0, self.normaliser[i], mean.detach() * size)
            right = positive / z / (positive / z + noise + _EPS)
            wrong = (noise[:, None] / (scores / z + noise[:, None] + _EPS)).clamp(min=_EPS**2)
            losses.append(-(right.log() + (wrong.log() * count).sum(1)).mean())
            normalisers.append(z)
        return torch.stack(losses).sum(), torch.stack(normalisers)


class Banked(Contrast):
    """Remembers every training image; a row moves towards the image's new embedding by `1 - momentum`.

    One set of rows is drawn for the batch, and each image takes the first K of other classes, so that all scores are
    one product. An image's negatives are then K distinct images drawn uniformly, as in the authors' code, which draws
    for each image apart. Where fewer than K are of other classes, all of them are taken, and K is their number.
    """

    needs_index = True

    def __init__(
        self,
        widths: tuple[int, int],
        width: int,
        labels: Int64[Tensor, "N"],
        temperature: float,
        negatives: int,
        momentum: float,
    ) -> None:
        super().__init__(widths, width, labels, temperature)
        self.negatives = negatives
        self.momentum = momentum
        self.drawn = min(len(labels), negatives + int(labels.bincount().max()))  # K of other classes are among so many

    def draw(self, generator: torch.Generator, index: Int64[Tensor, "B"]) -> dict[str, Tensor]:
        """`rows`: the images that are negatives to those of other classes. Drawn on the device."""
        device = self.labels.device
        seed = int(torch.randint(2**62, (), generator=generator))
        order = torch.randperm(len(self.labels), generator=torch.Generator(device).manual_seed(seed), device=device)
        return {"rows": order[: self.drawn]}

    def remembering(
        self, student: Outputs, teacher: Outputs, batch: Batch
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss; the embeddings and Z."""
        rows = batch.draws["crd"]["rows"]
        others = self.labels[rows] != batch.labels[:, None]
        chosen = others & (others.cumsum(1) <= self.negatives)
        return self.against(self.embedded(student, teacher), batch, rows, chosen.to(self.normaliser.dtype))

    def against(
        self,
        embedded: tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]],
        batch: Batch,
        rows: Int64[Tensor, "M"],
        count: Float[Tensor, "B M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss against these rows of the banks, each counted `count` times; the embeddings and Z."""
        banks = (self.memory_teacher, self.memory_student)
        positives = banks[0][batch.index], banks[1][batch.index]
        loss, z = self.contrasted(embedded, positives, (banks[0][rows], banks[1][rows]), count)
        return loss, {"student": embedded[0], "teacher": embedded[1], "normaliser": z}

    def update(self, seen: Mapping[str, Tensor], batch: Batch) -> None:
        """Move the batch's rows, each of unit length again, and keep Z."""
        for bank, new in ((self.memory_student, seen["student"]), (self.memory_teacher, seen["teacher"])):
            mixed = self.momentum * bank[batch.index] + (1 - self.momentum) * new
            bank.index_copy_(0, batch.index, F.normalize(mixed))
        self.normaliser.copy_(seen["normaliser"])


class Queue(Contrast):
    """Remembers the embeddings of the last images alone: first in, first out.

    For data whose banks do not fit, and for streams. The positive is the other network's embedding of this step, and
    the negatives are all rows of other classes (of those drawn at the start, too). No paper's: after He et al., MoCo.
    """

    place: Tensor

    def __init__(self, widths: tuple[int, int], width: int, rows: int, temperature: float) -> None:
        super().__init__(widths, width, torch.full((rows,), -1), temperature)
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def remembering(
        self, student: Outputs, teacher: Outputs, batch: Batch
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss; the embeddings and Z."""
        s, t = self.embedded(student, teacher)
        count = (self.labels != batch.labels[:, None]).to(s.dtype)
        banks = (self.memory_teacher, self.memory_student)
        loss, z = self.contrasted((s, t), (t.detach(), s.detach()), banks, count)
        return loss, {"student": s, "teacher": t, "normaliser": z}

    def update(self, seen: Mapping[str, Tensor], batch: Batch) -> None:
        """Put the batch in the place of the oldest rows, and keep Z."""
        size = min(len(batch.labels), len(self.labels))
        rows = (self.place + torch.arange(size, device=self.place.device)) % len(self.labels)
        self.memory_student.index_copy_(0, rows, seen["student"][:size])
        self.memory_teacher.index_copy_(0, rows, seen["teacher"][:size])
        self.labels.index_copy_(0, rows, batch.labels[:size])
        self.place.add_(size).remainder_(len(self.labels))
        self.normaliser.copy_(seen["normaliser"])


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
        return _planned(Queue(widths, width, queue, temperature), weight, ce_weight, kd_weight, epochs, optim, ())
    labels = pair.data.labels
    if not len(labels):
        raise UserError(
            "crd remembers a row for each training image; how many there are is not known of a stream. "
            "Leave --reading.stream out, or remember the last images alone: --options.queue 16384."
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
    term = Banked(widths, width, labels, temperature, negatives, momentum)
    return _planned(term, weight, ce_weight, kd_weight, epochs, optim, notes)


def _planned(
    term: Contrast,
    weight: float,
    ce_weight: float,
    kd_weight: float,
    epochs: int,
    optim: Optim,
    notes: tuple[str, ...],
) -> Plan:
    rows, width = term.memory_student.shape
    mebibytes = 2 * term.memory_student.nbytes / 2**20
    kind = "queues" if isinstance(term, Queue) else "banks"
    size = f"crd: two {kind} of {rows:,} x {width} numbers take {mebibytes:,.1f} MiB."
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"crd": (weight, term)}, epochs, optim, (size, *notes))
