"""From images to what the loop is fed with: which recipe, decoded once or by workers, where they lie."""

from collections.abc import Sequence
from typing import Literal

import torch

from sskd.data.batches import Resident
from sskd.data.crops import Crops, Padded, Resized
from sskd.data.decoded import Decoded
from sskd.data.feed import ALONE, Feed, Share
from sskd.data.images import Images
from sskd.data.source import ImageSet
from sskd.data.streams import Stream, Streamed
from sskd.errors import UserError

SMALL = 64  # pixels: images up to this side are padded and cut, larger ones cut and resized
PHOTOGRAPH = 224  # pixels, the side at which photographs are seen unless the user says otherwise
IN_MEMORY = 2 << 30  # bytes of decoded images: some 10,000 at 256 pixels


def choose_crops(
    images: ImageSet,
    crop: Literal["auto", "padded", "resized"],
    size: int | None,
    flip: float,
    padding: int,
    scale: tuple[float, float],
) -> Crops:
    """The recipe of augmentation: the 32-pixel one for small images of one size, else the photographs'.

    Raises:
        UserError: the recipe does not fit the images.
    """
    if isinstance(images, Images):
        height, width = images.pixels.shape[-2:]
        small = max(height, width) <= SMALL
        if crop == "padded" or (crop == "auto" and small and size in (None, height)):
            if size not in (None, height):
                raise UserError(f"crop padded keeps the images' {height} pixels; got size {size}. Say --crop resized.")
            return Padded(flip, padding)
        return Resized(min(height, width) if size is None else size, flip, scale)
    if crop == "padded":
        raise UserError("crop padded needs images of one size, in memory; these are photographs. Say --crop resized.")
    return Resized(PHOTOGRAPH if size is None else size, flip, scale)


def image_shape(images: ImageSet, crops: Crops) -> tuple[int, int, int]:
    """Channels, height and width of the images as networks see them.

    Raises:
        UserError: the images are too small for the recipe.
    """
    if isinstance(images, Images):
        channels, height, width = images.pixels.shape[1:]
        return channels, *crops.shape(height, width)
    assert isinstance(crops, Resized)
    return images.channels, crops.size, crops.size


def fits(images: Sequence[ImageSet], crops: Crops) -> bool:
    """Whether the images, decoded, take no more than `IN_MEMORY` bytes. A matter of the data alone, since images in
    memory are cut a little differently: the machine must not decide what a student sees.
    """
    if any(isinstance(one, Stream) for one in images):
        return False
    side = crops.stored if isinstance(crops, Resized) else 0
    return sum(len(one) * one.channels * side**2 for one in images if not isinstance(one, Images)) <= IN_MEMORY


def make_feed(images: ImageSet, crops: Crops, device: torch.device, workers: int, share: Share = ALONE) -> Feed:
    """Images in memory move to the device; pictures are decoded by workers. Each process gets its share."""
    if isinstance(images, Images):
        return Resident.on(images, device, crops, share)
    assert isinstance(crops, Resized)
    if isinstance(images, Stream):
        return Streamed(images, crops, device, workers, share)
    return Decoded(images, crops, device, workers, share)
