"""By how many quarter turns is a view rotated? Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by
Predicting Image Rotations", ICLR 2018."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.data.feed import ALONE, Share
from sskd.data.source import DataInfo
from sskd.views.pretext import NOTHING, Batch, Drawn, Pretext, two_layers
from sskd.views.rotations import rotated


class Rotation(Pretext):
    """All four rotations of an image, and four answers to each; the plain view is asked too, so that none is rarer."""

    name = "rotation"

    def transform(
        self, crops: Float[Tensor, "B 4 C S S"], generator: torch.Generator, share: Share = ALONE
    ) -> tuple[Float[Tensor, "B 4 C S S"], Int64[Tensor, "B 4"]]:
        """View k rotated by k x 90 degrees. Nothing is drawn."""
        return rotated(crops)

    def head(self, dim: int, data: DataInfo) -> nn.Module:
        """Linear(d, d) - ReLU - Linear(d, 4)."""
        return two_layers(dim, 4)

    def logits(self, z: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B*4 4"]:
        """The head's outputs, image by image."""
        return z.flatten(0, 1)

    def target(self, batch: Batch, drawn: Drawn = NOTHING) -> Int64[Tensor, "B*4"]:
        """Each view's quarter turns."""
        return batch.asked.flatten()
