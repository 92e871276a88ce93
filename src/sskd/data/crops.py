"""How training images are flipped and cut: the recipe for small images, and the one for photographs."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from sskd.data.feed import ALONE, Share
from sskd.errors import UserError
from sskd.memory import sent

TRIES = 10  # boxes drawn before one is squeezed into the image, as torchvision does
STORED = 8 / 7  # a stored photograph's side in sides of its crops: 256 for 224
RATIOS = (3 / 4, 4 / 3)


class Crops(Protocol):
    """Flips whole images, one flip for all crops of an image, and cuts crops out of them."""

    def __call__(
        self, pixels: UInt8[Tensor, "B C H W"], count: int, generator: torch.Generator, share: Share = ALONE
    ) -> UInt8[Tensor, "B count C S T"]:
        """Training crops of this process's rows. All draws, of the whole batch, come from `generator`, on the CPU."""
        ...

    def whole(self, pixels: UInt8[Tensor, "B C H W"]) -> UInt8[Tensor, "B C S T"]:
        """The images as they are evaluated."""
        ...

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what comes out, for images of this size."""
        ...


@dataclass(frozen=True)
class Padded:
    """The published recipe for 32 pixels: flip, pad with zeros, cut the original size out at random."""

    flip: float = 0.5  # probability
    padding: int = 4  # pixels on each side

    def __call__(
        self, pixels: UInt8[Tensor, "B C H W"], count: int, generator: torch.Generator, share: Share = ALONE
    ) -> UInt8[Tensor, "B count C H W"]:
        """One flip per image, `count` crops. All draws come from `generator`, on the CPU."""
        size = len(pixels) * share.size
        flipped = share.of(torch.rand(size, generator=generator) < self.flip)
        corner = torch.randint(0, 2 * self.padding + 1, (2, size, count), generator=generator)
        corner = torch.stack([share.of(side) for side in corner])
        return self._cut(_flip(pixels, flipped), *sent(corner, pixels.device))

    def _cut(
        self, images: UInt8[Tensor, "B C H W"], top: Int64[Tensor, "B V"], left: Int64[Tensor, "B V"]
    ) -> UInt8[Tensor, "B V C H W"]:
        size, _, height, width = images.shape
        padded = F.pad(images, (self.padding,) * 4)
        rows = (top[..., None] + torch.arange(height, device=images.device))[:, :, :, None]  # B V H 1
        columns = (left[..., None] + torch.arange(width, device=images.device))[:, :, None, :]  # B V 1 W
        image = torch.arange(size, device=images.device).view(-1, 1, 1, 1)
        # Indices around the channel slice put the channels last: B V H W C.
        return padded[image, :, rows, columns].movedim(-1, 2)

    def whole(self, pixels: UInt8[Tensor, "B C H W"]) -> UInt8[Tensor, "B C H W"]:
        """The images as they are."""
        return pixels

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Padding and cutting keep the size.

        Raises:
            UserError: a crop could miss the image altogether.
        """
        if self.padding >= min(height, width):
            raise UserError(
                f"padding {self.padding} can shift images of {height}x{width} pixels out of sight; "
                "the published recipes pad 4 pixels around 32."
            )
        return height, width


@dataclass(frozen=True)
class Resized:
    """The recipe for photographs: a random box, of a random share of the area, resized to a square; flip."""

    size: int  # pixels, the side of a crop
    flip: float = 0.5  # probability
    scale: tuple[float, float] = (0.08, 1.0)  # share of the area

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise UserError(
                f"scale is the lowest and highest share of the area to cut out, in (0, 1]; got {low, high}."
            )

    @property
    def stored(self) -> int:
        """The side, in pixels, to which photographs are reduced when they are decoded once."""
        return round(self.size * STORED)

    def boxes(self, height: int, width: int, count: int, generator: torch.Generator) -> Float[Tensor, "count 4"]:
        """Random left, top, right, bottom in pixels: the area's share uniform, the log of the ratio uniform."""
        drawn = torch.rand(4, TRIES, count, generator=generator, dtype=torch.float64)
        low, high = self.scale
        area = height * width * (low + (high - low) * drawn[0])
        ratio = torch.exp(math.log(RATIOS[0]) + math.log(RATIOS[1] / RATIOS[0]) * drawn[1])
        wide, tall = (area * ratio).sqrt(), (area / ratio).sqrt()
        first = ((wide <= width) & (tall <= height)).float().argmax(0, keepdim=True)  # the first try where none fits
        wide, tall, x, y = (value.gather(0, first)[0] for value in (wide, tall, drawn[2], drawn[3]))
        wide, tall = wide.clamp(max=width), tall.clamp(max=height)
        left, top = x * (width - wide), y * (height - tall)
        return torch.stack([left, top, left + wide, top + tall], 1)

    def __call__(
        self, pixels: UInt8[Tensor, "B C H W"], count: int, generator: torch.Generator, share: Share = ALONE
    ) -> UInt8[Tensor, "B count C size size"]:
        """One flip per image, `count` crops, bilinear. All draws come from `generator`, on the CPU."""
        (size, channels, height, width), device = pixels.shape, pixels.device
        flipped = share.of(torch.rand(size * share.size, generator=generator) < self.flip)
        boxes = share.of(self.boxes(height, width, size * share.size * count, generator).float())
        boxes = sent(boxes, device)
        grid = box_grid(boxes, height, width, self.size)
        images = _flip(pixels, flipped).float().repeat_interleave(count, 0)
        cut = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return cut.round().to(torch.uint8).view(size, count, channels, self.size, self.size)

    def whole(self, pixels: UInt8[Tensor, "B C H W"]) -> UInt8[Tensor, "B C size size"]:
        """The middle, where the images were stored larger than a crop."""
        top, left = ((side - self.size) // 2 for side in pixels.shape[-2:])
        return pixels[..., top : top + self.size, left : left + self.size]

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Squares of `size`.

        Raises:
            UserError: the images are smaller.
        """
        if min(height, width) < self.size:
            raise UserError(
                f"The images are {height}x{width} pixels and size is {self.size}: choose a size of at most "
                f"{min(height, width)}."
            )
        return self.size, self.size


def _flip(pixels: UInt8[Tensor, "B C H W"], flipped: Tensor) -> UInt8[Tensor, "B C H W"]:
    return torch.where(sent(flipped, pixels.device).view(-1, 1, 1, 1), pixels.flip(-1), pixels)


def box_grid(boxes: Float[Tensor, "N 4"], height: int, width: int, size: int) -> Float[Tensor, "N size size 2"]:
    """Where in its image, from -1 to 1, each pixel of a crop lies."""
    centre = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size
    left, top, right, bottom = boxes.T[:, :, None]
    x = (left + (right - left) * centre) * (2 / width) - 1  # N size
    y = (top + (bottom - top) * centre) * (2 / height) - 1
    return torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1)
