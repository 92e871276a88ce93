"""Decoded images of one size, in memory."""

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from sskd.errors import UserError
from sskd.escaping import visible


class Names(Protocol):
    """Says where images came from."""

    def name(self, i: int) -> str:
        """Where image number `i` lies, for messages."""
        ...


@dataclass(frozen=True)
class Images:
    """Decoded images of one size, with their labels, in memory."""

    pixels: UInt8[Tensor, "N C H W"]
    labels: Int64[Tensor, "N"]
    names: Names | None = None  # where there are any
    place: Int64[Tensor, "N"] | None = None  # numbers for `names`

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise ValueError(f"{len(self.pixels)} images came with {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """1 or 3, as a rule."""
        return self.pixels.shape[1]

    def take(self, index: Int64[Tensor, "K"]) -> "Images":
        """The images at these positions, in this order."""
        place = None if self.place is None else self.place[index]
        return Images(self.pixels[index], self.labels[index], self.names, place)

    def name(self, position: int) -> str:
        """Where the image at this position came from, for messages; its position where that is not known."""
        if self.names is None or self.place is None:
            return f"image {position}"
        return visible(self.names.name(int(self.place[position])))

    def reduced(self, side: int) -> "Images":
        """Larger squares reduced to `side` pixels, antialiased; others as they are."""
        if min(self.pixels.shape[-2:]) <= side:
            return self
        parts = [_resized(part, side) for part in torch.split(self.pixels, 1024)]
        return replace(self, pixels=torch.cat(parts))

    def fingerprint(self) -> str:
        """SHA-256 over shape, pixels and labels: two equal values mean the same training data."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        for tensor in (self.pixels, self.labels):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def _resized(pixels: UInt8[Tensor, "N C H W"], side: int) -> UInt8[Tensor, "N C side side"]:
    small = interpolate(pixels.float(), (side, side), mode="bilinear", align_corners=False, antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


def square(images: Images, how: str, name: str) -> Images:
    """Centre-crop to squares (`how="crop"`) or refuse images that are not square (`how="refuse"`)."""
    height, width = images.pixels.shape[-2:]
    if height == width:
        return images
    if how == "refuse":
        raise UserError(
            f"The images of {name} are {height}x{width} (height x width); views rotated by 90 degrees need squares. "
            "Say --reading.square crop to cut the centre square out of each, or bring square images."
        )
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return replace(images, pixels=images.pixels[:, :, top : top + side, left : left + side].contiguous())


def channel_statistics(
    pixels: UInt8[Tensor, "N C H W"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels scaled to [0, 1], from exact counts of the 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in pixels.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).to(torch.float64)
        mean = float((counts * values).sum() / counts.sum())
        variance = float((counts * (values - mean) ** 2).sum() / counts.sum())
        means.append(mean)
        deviations.append(max(variance, 1e-12) ** 0.5)
    return tuple(means), tuple(deviations)
