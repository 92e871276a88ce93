"""The paper's pretext: which image does a transformed view come from (SSKD, ECCV 2020)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.data.source import DataInfo
from sskd.views.pretext import Batch
from sskd.views.rotations import rotated


class Contrastive:
    """Four rotations; each transformed view asks for its own image among the batch's plain ones.

    View k is its crop rotated counter-clockwise by k x 90 degrees, k = 0..3.
    """

    name = "contrastive"
    views = 4
    own_crop = True
    selective = True

    def transform(
        self, crops: Float[Tensor, "B 4 C S S"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "B 4 C S S"], Int64[Tensor, "B 4"]]:
        """Rotate. Nothing is drawn: the rotations of an image are always all four."""
        return rotated(crops)

    def head(self, dim: int, data: DataInfo) -> nn.Module:
        """Linear(d, d) - ReLU - Linear(d, d)."""
        return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def logits(self, z: Float[Tensor, "B V E"]) -> Float[Tensor, "B*(V-1) B"]:
        """Cosine of each transformed view (rows, image by image) with each plain image (columns)."""
        unit = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=-1)
        return unit[:, 1:].flatten(0, 1) @ unit[:, 0].T

    def target(self, batch: Batch) -> Int64[Tensor, "B*(V-1)"]:
        """Each row's own image."""
        size, views = batch.asked.shape
        return torch.arange(size, device=batch.asked.device).repeat_interleave(views - 1)
