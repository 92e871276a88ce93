"""What the loop is fed with: crops of images, wherever the images come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from sskd.seeds import generator_at


@dataclass(frozen=True)
class Share:
    """Which of `size` processes this one is. Each takes its rows of every batch; draws are those of the whole batch."""

    rank: int = 0
    size: int = 1

    def rows(self, total: int) -> slice:
        """Which rows of a batch of `total` are this process's."""
        count = total // self.size
        return slice(self.rank * count, (self.rank + 1) * count)

    def of(self, values: Tensor) -> Tensor:
        """This process's rows of a whole batch's values."""
        return values[self.rows(len(values))]


ALONE = Share()


class Cut(NamedTuple):
    """Crops of this process's part of a batch of images, on the device."""

    pixels: UInt8[Tensor, "B V C H W"]
    labels: Int64[Tensor, "B"]
    index: Int64[Tensor, "B"]  # type: ignore[assignment]  # on the CPU: position in the training set, or -1
    whole: Int64[Tensor, "processes*B"]  # on the CPU: the index of the whole batch, of all processes


class Feed(Protocol):
    """A set of images, cut into batches."""

    @property
    def comfortable(self) -> int:
        """Images that make a large batch for evaluation, where nothing depends on its size."""
        ...

    def steps(self, batch_size: int) -> int:
        """Batches in an epoch."""
        ...

    def epoch(
        self, batch_size: int, crops: int, address: tuple[int | str, ...], first: int = 0
    ) -> Iterator[tuple[Cut, torch.Generator]]:
        """Training batches from number `first` on, `crops` of each image, as the address alone decides.

        With each comes the generator of its step, for what else is to be drawn.
        """
        ...

    def whole(self, batch_size: int) -> Iterator[Cut]:
        """All images once, in order, for evaluation; the last batch may be smaller.

        Of several processes each gets whole batches, in turn.
        """
        ...


def comfortable(side: int) -> int:
    """512 images of 32 pixels, and as many pixels of larger ones."""
    return max(1, 512 * 32**2 // max(side, 1) ** 2)


def epoch_order(size: int, batch_size: int, address: tuple[int | str, ...]) -> Int64[Tensor, "steps B"]:
    """The positions of one epoch's batches, in random order, without the ragged rest.

    All batches of a run have one size, so that a compiled step never meets another: min(batch_size, size) images;
    the size % batch_size images that are left over wait for another epoch's order.
    """
    batch_size = min(batch_size, size)
    steps = size // batch_size
    order = torch.randperm(size, generator=generator_at(*address))
    return order[: steps * batch_size].view(steps, batch_size)
