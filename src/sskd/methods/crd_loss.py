"""CRD's losses on tensors, with their memories. The method that the engine runs stands in `sskd.methods.crd`."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.methods.logits import check_batch, need_positive

_EPS = 1e-7


class ContrastiveMemory(nn.Module):
    """Noise-contrastive estimation between two networks' embeddings (Tian et al., equations 17-19), in both directions.

    An image's embedding by one network is scored, P = exp(z . w / T) / Z, against what is remembered of the other: its
    positive, and K rows of other classes. h = P / (P + K / N); the loss is -log h of the positive and -log(1 - h) of
    each negative, summed; batch mean. Z is the mean score of the first batch times N, and stays.

    `labels` are the classes of the N remembered rows; rows are drawn at random to begin with. To be derived from.
    """

    memory_student: Tensor
    memory_teacher: Tensor
    labels: Tensor
    normaliser: Tensor

    def __init__(
        self, student_dim: int, teacher_dim: int, labels: Int64[Tensor, "N"], width: int, temperature: float
    ) -> None:
        super().__init__()
        need_positive(width=width, temperature=temperature)
        self.embed_s, self.embed_t = nn.Linear(student_dim, width), nn.Linear(teacher_dim, width)
        bound = math.sqrt(3 / width)
        for name in ("memory_student", "memory_teacher"):
            self.register_buffer(name, torch.empty(len(labels), width).uniform_(-bound, bound))
        self.register_buffer("labels", labels.clone())
        self.register_buffer("normaliser", torch.full((2,), -1.0))  # Z of the student's and of the teacher's scores
        self.temperature = temperature

    def embedded(
        self, student: Float[Tensor, "B D"], teacher: Float[Tensor, "B F"]
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]]:
        """Both networks' embeddings, of unit length.

        Raises:
            UserError: other numbers of images.
        """
        check_batch(student, teacher)
        return F.normalize(self.embed_s(student)), F.normalize(self.embed_t(teacher))

    def contrasted(
        self,
        embedded: tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]],
        positives: tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]],
        rows: tuple[Float[Tensor, "M E"], Float[Tensor, "M E"]],
        count: Float[Tensor, "B M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss, and what is to be remembered of this step.

        `positives` and `rows` are of the other network; `count`: how often a row is a negative.
        """
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
        seen = {"student": embedded[0], "teacher": embedded[1], "normaliser": torch.stack(normalisers)}
        return torch.stack(losses).sum(), seen

    def remembers(self) -> bool:
        """Whether a step of `forward` is to be remembered: in training, with gradients."""
        return self.training and torch.is_grad_enabled()


class CRDLoss(ContrastiveMemory):
    """Contrastive representation distillation: tell an image's features from those of other classes' images.

    Tian, Krishnan, Isola, ICLR 2020. A row for each of the N training images is remembered of both networks, and moves
    towards the image's new embedding by `1 - momentum`. Give the loss's parameters to the optimizer, and keep its state
    with your checkpoint: it holds the memories. One set of rows is drawn for the batch, and each image takes the first
    K of other classes, so that all scores are one product. An image's negatives are then K distinct images drawn
    uniformly, as in the authors' code, which draws for each image apart. Where fewer than K are of other classes, all
    of them are taken, and K is their number. 0 or more; usually weighed 0.8.

    Args:
        student_dim: width of the student's features.
        teacher_dim: width of the teacher's features.
        labels: of all N training images, by their index.
        width: of the embeddings.
        negatives: K.
        temperature: T, above 0.
        momentum: share of a remembered row that stays.

    Raises:
        UserError: all labels are the same.

    Example:
        >>> loss = CRDLoss(student_dim=8, teacher_dim=16, labels=torch.arange(100) % 10, negatives=32)
        >>> loss(torch.rand(4, 8), torch.rand(4, 16), index=torch.tensor([7, 3, 99, 0])).shape
        torch.Size([])
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        labels: Int64[Tensor, "N"],
        width: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__(student_dim, teacher_dim, labels, width, temperature)
        largest = int(labels.bincount().max()) if len(labels) else 0
        if largest == len(labels):
            raise UserError(f"CRD contrasts images of unlike classes; all {len(labels):,} labels are of one class.")
        self.negatives = negatives
        self.momentum = momentum
        self.drawn = min(len(labels), negatives + largest)  # K of other classes are among so many

    def draw(self, generator: torch.Generator | None = None) -> Int64[Tensor, "M"]:
        """Draw, on the device, the images that are negatives to those of other classes."""
        device = self.labels.device
        seed = int(torch.randint(2**62, (), generator=generator))
        order = torch.randperm(len(self.labels), generator=torch.Generator(device).manual_seed(seed), device=device)
        return order[: self.drawn]

    def forward(
        self, student: Float[Tensor, "B D"], teacher: Float[Tensor, "B F"], index: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """The loss of features of the images with these numbers. In training they are remembered at once.

        Raises:
            UserError: no index, or numbers that are none of the training images'; other numbers of images.
        """
        self._check_index(student, index)
        loss, seen = self.compute(student, teacher, index, self.draw())
        if self.remembers():
            self.update({name: value.detach() for name, value in seen.items()}, index)
        return loss

    def _check_index(self, student: Tensor, index: Tensor | None) -> None:
        if index is None or len(index) != len(student):
            got = "no index" if index is None else f"{len(index)} for {len(student)} images"
            raise UserError(
                f"CRD remembers each training image by its number: give `index`, the images' positions in the "
                f"{len(self.labels):,} labels; got {got}. Let the dataset return them."
            )
        if int(index.min()) < 0 or int(index.max()) >= len(self.labels):
            raise UserError(
                f"CRD knows images 0 to {len(self.labels) - 1}, by the labels that it was built with; got the numbers "
                f"{int(index.min())} to {int(index.max())}."
            )

    def compute(
        self,
        student: Float[Tensor, "B D"],
        teacher: Float[Tensor, "B F"],
        index: Int64[Tensor, "B"],
        rows: Int64[Tensor, "M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss against drawn rows, and what `update` is to be given; nothing is written."""
        others = self.labels[rows] != self.labels[index][:, None]
        chosen = others & (others.cumsum(1) <= self.negatives)
        return self.against(self.embedded(student, teacher), index, rows, chosen.to(self.normaliser.dtype))

    def against(
        self,
        embedded: tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]],
        index: Int64[Tensor, "B"],
        rows: Int64[Tensor, "M"],
        count: Float[Tensor, "B M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss against these rows of the memories, each counted `count` times; and what `update` is to be given."""
        banks = (self.memory_teacher, self.memory_student)
        positives = banks[0][index], banks[1][index]
        return self.contrasted(embedded, positives, (banks[0][rows], banks[1][rows]), count)

    @torch.no_grad()
    def update(self, seen: Mapping[str, Tensor], index: Int64[Tensor, "B"]) -> None:
        """Move the batch's rows, each of unit length again, and keep Z."""
        for bank, new in ((self.memory_student, seen["student"]), (self.memory_teacher, seen["teacher"])):
            mixed = self.momentum * bank[index] + (1 - self.momentum) * new
            bank.index_copy_(0, index, F.normalize(mixed))
        self.normaliser.copy_(seen["normaliser"])


class CRDQueueLoss(ContrastiveMemory):
    """CRD that remembers the embeddings of the last images alone: first in, first out.

    For data whose memories do not fit, and for streams. The positive is the other network's embedding of this step, and
    the negatives are all rows of other classes (of those drawn at the start, too). No paper's: after He et al., MoCo.

    Args:
        student_dim: width of the student's features.
        teacher_dim: width of the teacher's features.
        rows: images that are remembered.
        width: of the embeddings.
        temperature: above 0.

    Example:
        >>> loss = CRDQueueLoss(student_dim=8, teacher_dim=16, rows=64)
        >>> loss(torch.rand(4, 8), torch.rand(4, 16), labels=torch.tensor([0, 1, 2, 0])).shape
        torch.Size([])
    """

    place: Tensor

    def __init__(
        self, student_dim: int, teacher_dim: int, rows: int = 16384, width: int = 128, temperature: float = 0.07
    ) -> None:
        super().__init__(student_dim, teacher_dim, torch.full((rows,), -1), width, temperature)
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(
        self, student: Float[Tensor, "B D"], teacher: Float[Tensor, "B F"], labels: Int64[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """The loss of features. In training they are remembered at once.

        Raises:
            UserError: other numbers of images.
        """
        loss, seen = self.compute(student, teacher, labels)
        if self.remembers():
            self.update({name: value.detach() for name, value in seen.items()}, labels)
        return loss

    def compute(
        self, student: Float[Tensor, "B D"], teacher: Float[Tensor, "B F"], labels: Int64[Tensor, "B"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss, and what `update` is to be given; nothing is written."""
        s, t = self.embedded(student, teacher)
        count = (self.labels != labels[:, None]).to(s.dtype)
        return self.contrasted((s, t), (t.detach(), s.detach()), (self.memory_teacher, self.memory_student), count)

    @torch.no_grad()
    def update(self, seen: Mapping[str, Tensor], labels: Int64[Tensor, "B"]) -> None:
        """Put the batch in the place of the oldest rows, and keep Z."""
        size = min(len(labels), len(self.labels))
        rows = (self.place + torch.arange(size, device=self.place.device)) % len(self.labels)
        self.memory_student.index_copy_(0, rows, seen["student"][:size])
        self.memory_teacher.index_copy_(0, rows, seen["teacher"][:size])
        self.labels.index_copy_(0, rows, labels[:size])
        self.place.add_(size).remainder_(len(self.labels))
        self.normaliser.copy_(seen["normaliser"])
