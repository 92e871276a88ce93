"""A whole data set on the device, as uint8, cut there in batches."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from sskd.data.crops import Crops, Padded
from sskd.data.feed import ALONE, Cut, Share, comfortable, epoch_order
from sskd.data.images import Images
from sskd.seeds import generator_at


@dataclass(frozen=True)
class Resident:
    """Images that live on the device: a `Feed`."""

    pixels: UInt8[Tensor, "N C H W"]
    labels: Int64[Tensor, "N"]
    crops: Crops = field(default_factory=Padded)
    share: Share = ALONE

    @classmethod
    def on(cls, images: Images, device: torch.device, crops: Crops, share: Share = ALONE) -> "Resident":
        """Move images to a device, once."""
        return cls(images.pixels.to(device), images.labels.to(device), crops, share)

    @property
    def comfortable(self) -> int:
        """See `Feed`."""
        return comfortable(self.pixels.shape[-1])

    @property
    def unchanging(self) -> bool:
        """Whether an image's training crops are the image itself, every time."""
        return isinstance(self.crops, Padded) and not self.crops.flip and not self.crops.padding

    def steps(self, batch_size: int) -> int:
        """Batches in an epoch."""
        return len(self.labels) // min(batch_size, len(self.labels))

    def epoch(
        self, batch_size: int, crops: int, address: tuple[int | str, ...], first: int = 0
    ) -> Iterator[tuple[Cut, torch.Generator]]:
        """Training batches; see `Feed`."""
        order = epoch_order(len(self.labels), batch_size, address)
        there = order.to(self.pixels.device)
        for i in range(first, len(order)):
            generator, index = generator_at(*address, i), self.share.of(there[i])
            pixels = self.crops(self.pixels[index], crops, generator, self.share)
            yield Cut(pixels, self.labels[index], self.share.of(order[i]), order[i]), generator

    def whole(self, batch_size: int) -> Iterator[Cut]:
        """All images in order; see `Feed`."""
        batches = zip(*(torch.split(values, batch_size) for values in (self.pixels, self.labels)), strict=True)
        for pixels, labels in islice(batches, self.share.rank, None, self.share.size):
            nowhere = torch.full((len(labels),), -1)
            yield Cut(self.crops.whole(pixels)[:, None], labels, nowhere, nowhere)
