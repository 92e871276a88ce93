"""Which training image is this? Dosovitskiy, Springenberg, Riedmiller, Brox, "Discriminative Unsupervised Feature
Learning with Convolutional Neural Networks", NeurIPS 2014: every training image is a class of its own."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.data.feed import ALONE, Share
from sskd.data.source import DataInfo
from sskd.errors import UserError
from sskd.views.pretext import NOTHING, Batch, Drawn, Pretext
from sskd.views.transformations import ROTATION, Transformations

GAIN = 2.0  # of the head's last layer


class Exemplar(Pretext):
    """All views of an image, the plain one too, have one answer: its number among the images of the teacher's head.

    Where there are more than `answers` images, the softmax is a sampled one: in each step it is over the batch's own
    images and others, drawn uniformly without replacement, `answers` in all (Jean et al., ACL 2015; with uniform draws
    the correction by their probability is the same for all, and vanishes).
    """

    needs_index = True

    def __init__(self, transformations: Transformations = ROTATION, answers: int = 65536) -> None:
        self.transformations, self.limit = transformations, answers
        self.name = f"exemplar{transformations.suffix}"
        self.size = 0

    def prepare(self, data: DataInfo) -> None:
        """Raises a `UserError` where the images have no numbers."""
        if not len(data.labels):
            raise UserError(
                "exemplar asks which training image a view comes from, and a stream's images have no numbers. Leave "
                "--reading.stream out, or choose another pretext."
            )
        self.size = data.teacher_size or data.size
        self.relates = self.sampled
        if self.sampled:
            self.name += f", {self.limit} answers"

    @property
    def sampled(self) -> bool:
        """Whether not all images are answers at once."""
        return self.size > self.limit

    def transform(
        self, crops: Float[Tensor, "B 4 C S S"], generator: torch.Generator, share: Share = ALONE
    ) -> tuple[Float[Tensor, "B 4 C S S"], Int64[Tensor, "B 4"]]:
        """Views 1 to 3 transformed; for rotation alone, the four rotations, of which nothing is drawn."""
        return self.transformations(crops, generator, share)

    def head(self, dim: int, data: DataInfo) -> nn.Module:
        """Linear(d, d) - ReLU - Linear(d, N), the last with a gain."""
        return Numbers(dim, self.size)

    def notes(self, heads: Mapping[str, nn.Module]) -> tuple[str, ...]:
        """The memory."""
        mebibytes = {side: sum(p.nbytes for p in head.parameters()) / 2**20 for side, head in heads.items()}
        answers = min(self.size, self.limit)
        each = self.views * answers * 4 / 2**20
        told = (
            f"exemplar: {self.size:,} training images are as many answers. The student's head takes "
            f"{mebibytes['student']:,.1f} MiB and, while it is trained, twice that again for gradients and momentum; "
            f"the teacher's takes {mebibytes['teacher']:,.1f} MiB. In a step the logits of each head take "
            f"{each:,.2f} MiB for each image of the batch, and their softmax as much again."
        )
        if not self.sampled:
            return (told,)
        return told, f"exemplar: {self.limit:,} of the answers are drawn in each step (--options.answers)."

    def draw(self, generator: torch.Generator, index: Int64[Tensor, "B"]) -> Drawn:
        """`own`: the batch's numbers. `rows`, where not all images are answers: those that are, the batch's first."""
        if not self.sampled:
            return {"own": index}
        order = torch.randperm(self.size, generator=generator)[: max(self.limit, len(index))]
        others = order[~torch.isin(order, index)][: max(self.limit - len(index), 0)]
        return {"own": index, "rows": torch.cat([index, others])}

    def answers(self, head: nn.Module, features: Float[Tensor, "B V D"], drawn: Drawn) -> Float[Tensor, "B*V K"]:
        """K is N, or as many as are drawn."""
        logits: Tensor = head(features.flatten(0, 1), drawn.get("rows"))
        return logits

    def target(self, batch: Batch, drawn: Drawn = NOTHING) -> Int64[Tensor, "B*V"]:
        """Each view's own image: its number, or its place among the rows."""
        own, views = drawn["own"], batch.asked.shape[1]
        places = torch.arange(len(own), device=own.device) if "rows" in drawn else own
        return places.repeat_interleave(views)


class Numbers(nn.Module):
    """Linear(d, d) - ReLU - `GAIN` x Linear(d, N), of whose N outputs some can be asked for alone.

    An answer is right for one image of an epoch, so at the rates of the other heads its row hardly moves, and weight
    decay takes what it learns. The last layer begins with weights that are so many times smaller, that is with the same
    logits, and the gain then moves these GAIN^2 times as far. More of it upsets the student's head (docs/log.md).
    """

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(dim, dim), nn.Linear(dim, outputs)
        with torch.no_grad():
            self.last.weight /= GAIN
        self.gain: Tensor
        self.register_buffer("gain", torch.tensor(GAIN))  # kept with the weights, which mean nothing without it

    def extra_repr(self) -> str:
        """What tells it from heads of another gain, where heads are kept for other students."""
        return f"gain={GAIN:g}"

    def forward(self, features: Float[Tensor, "M D"], rows: Int64[Tensor, "K"] | None = None) -> Float[Tensor, "M K"]:
        """Logits of all answers, or of these rows."""
        z = self.gain * F.relu(self.hidden(features))
        if rows is None:
            logits: Tensor = self.last(z)
            return logits
        return F.linear(z, self.last.weight[rows], self.last.bias[rows])
