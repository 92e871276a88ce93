"""In which order do an image's four quarters stand? After Noroozi, Favaro, "Unsupervised Learning of Visual
Representations by Solving Jigsaw Puzzles", ECCV 2016, with a 2x2 grid as in SSKD."""

from itertools import permutations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.data.feed import ALONE, Share
from sskd.data.source import DataInfo
from sskd.errors import UserError
from sskd.memory import sent
from sskd.views.pretext import NOTHING, Batch, Drawn, Pretext, two_layers

ORDERS = torch.tensor([*permutations(range(4))])
"""[24, 4]: which quarter of the image (row by row) stands at each place. The first is the image itself."""


class Jigsaw(Pretext):
    """Three views with their quarters in an order drawn from all 24 for each; 24 answers. The plain view is not asked.

    Where a side is odd, its middle row or column of pixels stays where it is.
    """

    name = "jigsaw"

    def prepare(self, data: DataInfo) -> None:
        """Raises a `UserError` for images without quarters."""
        height, width = data.image_shape[1:]
        if min(height, width) < 2:
            raise UserError(f"jigsaw cuts an image into quarters; these have {height}x{width} pixels.")

    def transform(
        self, crops: Float[Tensor, "B V C H W"], generator: torch.Generator, share: Share = ALONE
    ) -> tuple[Float[Tensor, "B V C H W"], Int64[Tensor, "B V"]]:
        """Each view but the first in an order of its own."""
        size, views = crops.shape[:2]
        drawn = torch.randint(len(ORDERS), (size * share.size, views - 1), generator=generator)
        asked = torch.cat([torch.zeros(size, 1, dtype=torch.int64), share.of(drawn)], 1)
        order = sent(ORDERS[asked], crops.device)  # B V 4
        quarters = torch.stack(_places(crops), 2)  # B V 4 C h w
        each = torch.arange(size * views, device=crops.device)[:, None]
        moved = quarters.flatten(0, 1)[each, order.flatten(0, 1)].view_as(quarters)
        made = crops.clone(memory_format=torch.contiguous_format)
        for place, quarter in zip(_places(made), moved.unbind(2), strict=True):
            place.copy_(quarter)
        return made, sent(asked, crops.device)

    def head(self, dim: int, data: DataInfo) -> nn.Module:
        """Linear(d, d) - ReLU - Linear(d, 24)."""
        return two_layers(dim, len(ORDERS))

    def logits(self, z: Float[Tensor, "B V 24"]) -> Float[Tensor, "B*(V-1) 24"]:
        """The head's outputs on the views whose order was drawn."""
        return z[:, 1:].flatten(0, 1)

    def target(self, batch: Batch, drawn: Drawn = NOTHING) -> Int64[Tensor, "B*(V-1)"]:
        """Their orders."""
        return batch.asked[:, 1:].flatten()


def _places(images: Float[Tensor, "B V C H W"]) -> list[Float[Tensor, "B V C h w"]]:
    """The four quarters, row by row, as parts of the images."""
    rows, columns = ((slice(side // 2), slice(-(side // 2), None)) for side in images.shape[-2:])
    return [images[..., row, column] for row in rows for column in columns]
