"""A whole data set on the device, as uint8, handed out in batches whose order has one address."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from sskd.data.source import Images


@dataclass(frozen=True)
class Resident:
    """Images that live on the device."""

    pixels: UInt8[Tensor, "N C H W"]
    labels: Int64[Tensor, "N"]

    @classmethod
    def on(cls, images: Images, device: torch.device) -> "Resident":
        """Move images to a device, once."""
        return cls(images.pixels.to(device), images.labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Int64[Tensor, "B"]) -> tuple[UInt8[Tensor, "B C H W"], Int64[Tensor, "B"]]:
        """Pixels and labels at these positions."""
        return self.pixels[index], self.labels[index]


def epoch_order(size: int, batch_size: int, generator: torch.Generator) -> Int64[Tensor, "steps B"]:
    """The positions of one epoch's batches, in random order, without the ragged rest.

    All batches of a run have one size, so that a compiled step never meets another: min(batch_size, size) images;
    the size % batch_size images that are left over wait for another epoch's order.
    """
    batch_size = min(batch_size, size)
    steps = size // batch_size
    return torch.randperm(size, generator=generator)[: steps * batch_size].view(steps, batch_size)


def in_order(size: int, batch_size: int) -> Iterator[Int64[Tensor, "B"]]:
    """The positions of all images in order, the last batch ragged. For evaluation."""
    return iter(torch.split(torch.arange(size), batch_size))
