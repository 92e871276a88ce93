"""Flip and crop of whole batches, on the device that holds the data."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from sskd.views.pretext import Views


@dataclass(frozen=True)
class Augment:
    """The published augmentation: one flip per image with this probability, a crop from zero padding for each view."""

    flip: float = 0.5
    padding: int = 4  # pixels on each side

    def __call__(
        self, pixels: UInt8[Tensor, "B C H W"], views: Views, generator: torch.Generator
    ) -> tuple[Float[Tensor, "B V C H W"], Int64[Tensor, "B V"]]:
        """Training views in [0, 1] and what was done to each. All draws come from `generator`, on the CPU."""
        size, device = len(pixels), pixels.device
        flipped = torch.rand(size, generator=generator) < self.flip
        crops = views.views if views.own_crop else 1
        corner = torch.randint(0, 2 * self.padding + 1, (2, size, crops), generator=generator)
        images = torch.where(flipped.to(device).view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        cut = self._crop(images, *corner.to(device)).expand(-1, views.views, -1, -1, -1)
        made, asked = views.transform(cut, generator)
        return made.float() / 255, asked

    def _crop(
        self, images: UInt8[Tensor, "B C H W"], top: Int64[Tensor, "B V"], left: Int64[Tensor, "B V"]
    ) -> UInt8[Tensor, "B V C H W"]:
        size, _, height, width = images.shape
        padded = F.pad(images, (self.padding,) * 4)
        rows = (top[..., None] + torch.arange(height, device=images.device))[:, :, :, None]  # B V H 1
        columns = (left[..., None] + torch.arange(width, device=images.device))[:, :, None, :]  # B V 1 W
        image = torch.arange(size, device=images.device).view(-1, 1, 1, 1)
        # Indices around the channel slice put the channels last: B V H W C.
        return padded[image, :, rows, columns].movedim(-1, 2)


def plain_views(
    pixels: UInt8[Tensor, "B C H W"], views: Views, generator: torch.Generator
) -> tuple[Float[Tensor, "B V C H W"], Int64[Tensor, "B V"]]:
    """The views for evaluation: the transformations of the whole image, without flip or crop."""
    made, asked = views.transform(pixels[:, None].expand(-1, views.views, -1, -1, -1), generator)
    return made.float() / 255, asked
