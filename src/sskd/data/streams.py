"""Streams: labelled images that come one after the other, without a number by which one could be asked for again."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from sskd.data.crops import Resized
from sskd.data.decode import open_image, why_undecoded
from sskd.data.decoded import middle, random_crops
from sskd.data.feed import ALONE, Cut, Share, comfortable
from sskd.errors import UserError
from sskd.memory import sent
from sskd.reading import MAX_PIXELS
from sskd.seeds import generator_at, mix

Sample = tuple[bytes | None, int]
"""An encoded image and its label."""
Numbered = tuple[int, Sample]
"""A sample and its position in the epoch."""


@dataclass(frozen=True)
class Stream:
    """`samples(seed, first)` gives an epoch, shuffled by the seed, from its sample number `first` on; without a seed
    in order. `size` samples make an epoch; with `counted` false nobody said how many there are, and only evaluation,
    which goes on to the end, can use it. `identity` changes when the data does.
    """

    samples: Callable[[int | None, int], Iterator[Sample]]
    size: int
    identity: str
    channels: int = 3
    counted: bool = True
    max_pixels: int = MAX_PIXELS  # of an image that is decoded
    labels: Int64[Tensor, "0"] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # not known before

    def __len__(self) -> int:
        return self.size

    def fingerprint(self) -> str:
        """SHA-256 of what identifies the data."""
        return hashlib.sha256(f"{self.identity} {self.size}".encode()).hexdigest()


@dataclass(frozen=True)
class Streamed:
    """A stream, decoded by threads a batch ahead: a `Feed` whose images have no index.

    What comes out depends on the address alone. An epoch that goes on in its middle passes over what was seen without
    decoding it.
    """

    stream: Stream
    crops: Resized
    device: torch.device
    workers: int
    share: Share = ALONE

    @property
    def comfortable(self) -> int:
        """See `Feed`."""
        return comfortable(self.crops.size)

    def steps(self, batch_size: int) -> int:
        """Batches in an epoch."""
        return len(self.stream) // min(batch_size, len(self.stream))

    def epoch(
        self, batch_size: int, crops: int, address: tuple[int | str, ...], first: int = 0
    ) -> Iterator[tuple[Cut, torch.Generator]]:
        """Training batches; see `Feed`."""
        size = min(batch_size, len(self.stream))
        samples = self.stream.samples(mix(*address, "shuffle") % 2**31, first * size)
        wanted = islice(samples, (self.steps(batch_size) - first) * size)
        cut = partial(self._cut, crops=crops, address=address)
        step = first
        batches = _in_batches(enumerate(wanted, first * size), size)
        mine = (batch[self.share.rows(size)] for batch in batches if len(batch) == size)
        for pixels, labels in self._decoded(mine, cut):
            generator = generator_at(*address, step)
            flipped = self.share.of(torch.rand(size, generator=generator) < self.crops.flip)
            turned = torch.where(sent(flipped, self.device).view(-1, 1, 1, 1, 1), pixels.flip(-1), pixels)
            nowhere = torch.full((size,), -1)
            yield Cut(turned, labels, self.share.of(nowhere), nowhere), generator
            step += 1
        if step < self.steps(batch_size):
            raise UserError(
                f"The stream ended after {step * size} images; {len(self.stream)} were promised. Say how many make an "
                "epoch: --reading.epoch_images N."
            )

    def whole(self, batch_size: int) -> Iterator[Cut]:
        """All images in order; see `Feed`."""
        batches = _in_batches(enumerate(self.stream.samples(None, 0)), batch_size)
        for pixels, labels in self._decoded(islice(batches, self.share.rank, None, self.share.size), self._middle):
            nowhere = torch.full((len(labels),), -1)
            yield Cut(pixels, labels, nowhere, nowhere)

    def _cut(self, position: int, data: bytes | None, crops: int, address: tuple[int | str, ...]) -> Tensor:
        generator = generator_at(*address, "picture", position)
        return random_crops(self._open(position, data), self.crops, crops, self.stream.channels, generator)

    def _middle(self, position: int, data: bytes | None) -> Tensor:
        return middle(self._open(position, data), self.crops, self.stream.channels)

    def _open(self, position: int, data: bytes | None) -> Image.Image:
        try:
            return open_image(data, self.stream.max_pixels)
        except Exception as error:  # the decoders raise whatever they run into
            raise UserError(
                f"Image {position} (from 0) of the stream's epoch cannot be decoded: {why_undecoded(error)}"
            ) from error

    def _decoded(
        self, batches: Iterator[list[Numbered]], cut: Callable[[int, bytes | None], Tensor]
    ) -> Iterator[tuple[UInt8[Tensor, "B V C S S"], Int64[Tensor, "B"]]]:
        """Cut batches, the next one decoded while this one is used."""

        def begin() -> tuple[list[Future[Tensor]], list[int]]:
            taken = next(batches, [])
            cuts = [pool.submit(cut, position, data) for position, (data, _) in taken]
            return cuts, [label for _, (_, label) in taken]

        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            ahead, labels = begin()
            while ahead:
                now, named = ahead, labels
                ahead, labels = begin()
                pixels = torch.stack([one.result() for one in now])
                yield sent(pixels, self.device), sent(torch.tensor(named), self.device)


def _in_batches(samples: Iterator[Numbered], size: int) -> Iterator[list[Numbered]]:
    while batch := list(islice(samples, size)):
        yield batch
