"""Encoded images of any size, wherever they lie, decoded when they are needed."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import PIL
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from sskd.data.decode import open_image, reduced, to_pixels, why_undecoded
from sskd.data.images import Images, Names
from sskd.data.known import known
from sskd.errors import UserError
from sskd.escaping import visible
from sskd.reading import MAX_PIXELS

MANY = 1000  # images, from which on the outcome of their trial is worth keeping
NAMED = 5  # unreadable images that a message lists before it only counts them


class Reader(Protocol):
    """Where encoded images come from. Workers get a copy, so it must be picklable."""

    @property
    def names(self) -> Names:
        """Where the images lie, without the images: what decoded images keep of it."""
        ...

    def read(self, i: int) -> bytes | None:
        """The encoded image number `i`."""
        ...

    def name(self, i: int) -> str:
        """Where it lies, for messages."""
        ...

    def identity(self, i: int) -> str:
        """What changes when the image does, read without decoding: its name and length, for example."""
        ...


@dataclass(frozen=True)
class Pictures:
    """Labelled images of any size and mode, `channels` of each used."""

    reader: Reader
    place: Int64[Tensor, "N"]  # numbers for the reader
    labels: Int64[Tensor, "N"]
    channels: int
    max_pixels: int = MAX_PIXELS  # of an image that is decoded

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Int64[Tensor, "K"]) -> "Pictures":
        """The images at these positions, in this order."""
        return replace(self, place=self.place[index], labels=self.labels[index])

    def fingerprint(self) -> str:
        """SHA-256 over the images' identities and labels. Their bytes are not read: there may be very many."""
        digest = hashlib.sha256(repr((len(self), self.channels)).encode())
        for i in self.place.tolist():
            digest.update(self.reader.identity(i).encode(errors="surrogateescape") + b"\0")  # names need not be UTF-8
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def name(self, position: int) -> str:
        """Where the image at this position lies, for messages."""
        return visible(self.reader.name(int(self.place[position])))

    def open(self, position: int) -> Image.Image:
        """The image at this position, decoded, in mode L or RGB.

        Raises:
            UserError: it cannot be decoded.
        """
        number = int(self.place[position])
        try:
            return open_image(self.reader.read(number), self.max_pixels)
        except Exception as error:  # the decoders raise whatever they run into
            raise UserError(f"{self.name(position)} cannot be decoded: {why_undecoded(error)}") from error

    def stored(self, side: int) -> Images:
        """All images in memory, reduced to squares of `side` pixels.

        Raises:
            UserError: names and counts those that cannot be decoded.
        """
        pixels = torch.empty(len(self), self.channels, side, side, dtype=torch.uint8)

        def store(position: int) -> None:
            pixels[position] = to_pixels(reduced(self.open(position), side), self.channels)

        refuse_unreadable(failures(store, range(len(self))), len(self))
        return Images(pixels, self.labels, self.reader.names, self.place)

    def as_they_are(self, height: int, width: int) -> Images:
        """All images in memory, which must be of one size.

        Raises:
            UserError: names and counts those that cannot be decoded or are of another size.
        """
        pixels = torch.empty(len(self), self.channels, height, width, dtype=torch.uint8)

        def store(position: int) -> None:
            image = self.open(position)
            if image.size != (width, height):
                raise UserError(
                    f"{self.name(position)} is {image.height}x{image.width}, all others are {height}x{width}"
                )
            pixels[position] = to_pixels(image, self.channels)

        refuse_unreadable(failures(store, range(len(self))), len(self))
        return Images(pixels, self.labels, self.reader.names, self.place)


def failures(work: Callable[[int], None], positions: Sequence[int]) -> dict[int, str]:
    """Do the work for each position, in threads (the decoders release the interpreter's lock); what was refused."""
    refused: dict[int, str] = {}

    def attempt(position: int) -> None:
        try:
            work(position)
        except UserError as error:
            refused[position] = str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(attempt, positions):
            pass
    return dict(sorted(refused.items()))


def unreadable(pictures: Pictures) -> dict[int, str]:
    """The positions of images that cannot be decoded whole, and why.

    Decodes every image once. Of `MANY` the outcome is kept until one has another name, length or label, so that
    ImageNet is decoded in trial before its first run alone; what could not be decoded then is tried again.
    """

    def look(position: int) -> None:
        pictures.open(position)

    if len(pictures) < MANY:
        return failures(look, range(len(pictures)))
    refused = dict[int, str]()

    def try_all() -> list[int]:
        refused.update(failures(look, range(len(pictures))))
        return [*refused]

    key = f"{pictures.fingerprint()}, pillow {PIL.__version__}"
    key += "" if pictures.max_pixels == MAX_PIXELS else f", at most {pictures.max_pixels} pixels"
    suspects = known("undecodable", key, try_all)
    return refused or failures(look, suspects)


def refuse_unreadable(refused: dict[int, str], count: int, option: str = "--reading.unreadable skip") -> None:
    """Stop at images that cannot be decoded.

    Raises:
        UserError: names some and counts all.
    """
    if not refused:
        return
    listed = "; ".join(list(refused.values())[:NAMED])
    more = f"; and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
    raise UserError(
        f"{len(refused)} of {count} images cannot be decoded: {listed}{more}. Repair or remove them, or leave them out "
        f"with {option}."
    )


def without(pictures: Pictures, refused: Iterable[int]) -> Pictures:
    """The pictures but those at the refused positions."""
    kept = torch.ones(len(pictures), dtype=torch.bool)
    kept[list(refused)] = False
    return pictures.take(kept.nonzero().flatten())
