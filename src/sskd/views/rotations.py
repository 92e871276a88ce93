"""All four rotations of one crop, without a question of their own."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sskd.data.feed import ALONE, Share


class Rotations:
    """View k is the image's one crop rotated counter-clockwise by k x 90 degrees, k = 0..3."""

    name = "rotations"
    views = 4
    own_crop = False

    def transform(
        self, crops: Float[Tensor, "B 4 C S S"], generator: torch.Generator, share: Share = ALONE
    ) -> tuple[Float[Tensor, "B 4 C S S"], Int64[Tensor, "B 4"]]:
        """Rotate. Nothing is drawn."""
        return rotated(crops)


def rotated(crops: Float[Tensor, "B 4 C S S"]) -> tuple[Float[Tensor, "B 4 C S S"], Int64[Tensor, "B 4"]]:
    """The k-th crop of each image rotated k times by 90 degrees, counter-clockwise; and the k."""
    views = [torch.rot90(view, k, (-2, -1)) for k, view in enumerate(crops.unbind(1))]
    return torch.stack(views, 1), torch.arange(len(views), device=crops.device).expand(len(crops), -1)
