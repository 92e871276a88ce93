"""Photographs decoded by worker processes, epoch by epoch, where they would not fit in memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sskd.data.crops import Resized
from sskd.data.decode import reduced, to_pixels
from sskd.data.feed import ALONE, Cut, Share, comfortable, epoch_order
from sskd.data.pictures import Pictures
from sskd.errors import UserError
from sskd.memory import sent
from sskd.seeds import generator_at

AHEAD, AHEAD_BYTES = 4, 1 << 30  # batches that each worker decodes ahead; bytes of all of them together


def random_crops(
    image: Image.Image, crops: Resized, count: int, channels: int, generator: torch.Generator
) -> UInt8[Tensor, "count C S S"]:
    """Random boxes of one photograph, each resized to the crops' size."""
    size, boxes = (crops.size, crops.size), crops.boxes(image.height, image.width, count, generator)
    cut = [image.resize(size, Image.Resampling.BILINEAR, box=tuple(box)) for box in boxes.tolist()]
    return torch.stack([to_pixels(one, channels) for one in cut])


def middle(image: Image.Image, crops: Resized, channels: int) -> UInt8[Tensor, "1 C S S"]:
    """A photograph as it is evaluated."""
    return crops.whole(to_pixels(reduced(image, crops.stored), channels)[None])


class _Cutting(Dataset[UInt8[Tensor, "V C S S"]]):
    """Crops of the picture at a position, drawn from an address; without an address the middle square."""

    def __init__(self, pictures: Pictures, crops: Resized) -> None:
        self.pictures, self.crops = pictures, crops

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, asked: tuple[int, int, tuple[int | str, ...] | None]) -> UInt8[Tensor, "V C S S"]:
        position, count, address = asked
        image, channels = self.pictures.open(position), self.pictures.channels
        if address is None:
            return middle(image, self.crops, channels)
        return random_crops(image, self.crops, count, channels, generator_at(*address, "picture", position))


@dataclass(frozen=True)
class Decoded:
    """Pictures that are decoded anew in each epoch, once for all crops of an image: a `Feed`.

    What comes out depends on the address alone, not on the number of workers or on where an epoch begins.
    """

    pictures: Pictures
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
        return len(self.pictures) // min(batch_size, len(self.pictures))

    def epoch(
        self, batch_size: int, crops: int, address: tuple[int | str, ...], first: int = 0
    ) -> Iterator[tuple[Cut, torch.Generator]]:
        """Training batches; see `Feed`."""
        order = epoch_order(len(self.pictures), batch_size, address)
        asked = [[(position, crops, address) for position in self.share.of(row).tolist()] for row in order[first:]]
        for i, pixels in enumerate(self._load(asked), first):
            generator, index = generator_at(*address, i), self.share.of(order[i])
            flipped = self.share.of(torch.rand(len(order[i]), generator=generator) < self.crops.flip)
            cut = torch.where(sent(flipped, self.device).view(-1, 1, 1, 1, 1), pixels.flip(-1), pixels)
            yield Cut(cut, sent(self.pictures.labels[index], self.device), index, order[i]), generator

    def whole(self, batch_size: int) -> Iterator[Cut]:
        """All images in order; see `Feed`."""
        batches = torch.split(torch.arange(len(self.pictures)), batch_size)[self.share.rank :: self.share.size]
        asked = [[(position, 1, None) for position in batch.tolist()] for batch in batches]
        for batch, pixels in zip(batches, self._load(asked), strict=True):
            labels = sent(self.pictures.labels[batch], self.device)
            nowhere = torch.full((len(batch),), -1)
            yield Cut(pixels, labels, nowhere, nowhere)

    def _load(self, asked: list[list[Any]]) -> Iterator[UInt8[Tensor, "B V C S S"]]:
        pin = self.device.type == "cuda"
        ahead: dict[str, Any] = {}
        if self.workers and asked:
            crops = sum(count for _, count, _ in asked[0])
            room = AHEAD_BYTES // (self.workers * crops * self.pictures.channels * self.crops.size**2)
            ahead = {"prefetch_factor": min(max(room, 1), AHEAD)}
        loader: DataLoader[Any] = DataLoader(
            _Cutting(self.pictures, self.crops),
            batch_sampler=asked,
            num_workers=self.workers,
            pin_memory=pin,
            generator=torch.Generator(),  # else each epoch would draw a seed for its workers from the default one
            **ahead,
        )
        try:
            for pixels in loader:
                yield pixels.to(self.device, non_blocking=pin)
        except UserError as error:  # a worker's comes with its whole traceback
            raise UserError(str(error).strip().splitlines()[-1].partition("UserError: ")[2] or str(error)) from error


def default_workers(sharing: int = 1) -> int:
    """As many as there are cores for each of `sharing` processes, up to 8; none on a single core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores // sharing, 8) if cores > sharing else 0
