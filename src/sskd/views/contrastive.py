"""The paper's pretext: which image does a transformed view come from? (SSKD, ECCV 2020)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.data.feed import ALONE, Share
from sskd.data.source import DataInfo
from sskd.views.pretext import NOTHING, Batch, Drawn, Pretext, two_layers
from sskd.views.transformations import ROTATION, Transformations


def similarity_logits(z: Float[Tensor, "B V E"]) -> Float[Tensor, "B*(V-1) B"]:
    """Cosine of each transformed view (rows, image by image) with each plain image (columns), in at least fp32."""
    unit = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=-1)
    return unit[:, 1:].flatten(0, 1) @ unit[:, 0].T


class Contrastive(Pretext):
    """Each transformed view asks for its own image among the batch's plain ones."""

    selective = True
    relates = True

    def __init__(self, transformations: Transformations = ROTATION) -> None:
        self.transformations = transformations
        self.name = f"contrastive{transformations.suffix}"

    def transform(
        self, crops: Float[Tensor, "B 4 C S S"], generator: torch.Generator, share: Share = ALONE
    ) -> tuple[Float[Tensor, "B 4 C S S"], Int64[Tensor, "B 4"]]:
        """Views 1 to 3 transformed; for rotation alone, the four rotations, of which nothing is drawn."""
        return self.transformations(crops, generator, share)

    def head(self, dim: int, data: DataInfo) -> nn.Module:
        """Linear(d, d) - ReLU - Linear(d, d)."""
        return two_layers(dim, dim)

    def logits(self, z: Float[Tensor, "B V E"]) -> Float[Tensor, "B*(V-1) B"]:
        """See `similarity_logits`."""
        return similarity_logits(z)

    def target(self, batch: Batch, drawn: Drawn = NOTHING) -> Int64[Tensor, "B*(V-1)"]:
        """Each row's own image."""
        size, views = batch.asked.shape
        return torch.arange(size, device=batch.asked.device).repeat_interleave(views - 1)
