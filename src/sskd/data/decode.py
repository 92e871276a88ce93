"""Encoded images made into pixels, whatever their mode."""

import io

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

Image.MAX_IMAGE_PIXELS = None  # people's photographs; a bomb would need a data set of one's own
ORIENTATION, SIDEWAYS = 0x0112, 5  # EXIF; from 5 on height and width change places
GREY = ("L", "1", "LA", "I", "I;16", "I;16B", "I;16L", "F")


def open_image(data: bytes | None) -> Image.Image:
    """The image, turned upright, in mode L if it is grey and RGB otherwise.

    CMYK and palettes become RGB, transparent parts white, more than 8 bits a channel are scaled to 8.

    Raises:
        ValueError: there are no bytes, or values that have no known range (mode F).
        Exception: whatever the decoder runs into, from OSError to SyntaxError.
    """
    if data is None:
        raise ValueError("it holds no bytes")
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise ValueError("its values are floating-point numbers of no known range")
    if upright.mode.startswith("I"):
        return Image.fromarray((np.asarray(upright, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if upright.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in upright.info:
        coloured = upright.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        upright = Image.alpha_composite(white, coloured).convert("L" if upright.mode in GREY else "RGB")
    return upright.convert("L" if upright.mode in GREY else "RGB")


def header(data: bytes | None) -> tuple[tuple[int, int], bool]:
    """Height and width, upright, and whether the image is grey, from its header alone.

    Raises:
        Exception: whatever the decoder runs into.
    """
    with Image.open(io.BytesIO(data or b"")) as image:
        turned = image.getexif().get(ORIENTATION, 1) >= SIDEWAYS
        return (image.size if turned else image.size[::-1]), image.mode in GREY


def to_pixels(image: Image.Image, channels: int) -> UInt8[Tensor, "channels H W"]:
    """The image's pixels; a grey image may be asked for with 3 channels, a coloured one with 1."""
    array = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(array[None] if channels == 1 else array.transpose(2, 0, 1).copy())


def reduced(image: Image.Image, side: int) -> Image.Image:
    """The middle square, its side reduced (or enlarged) to `side` pixels."""
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    box = (left, top, left + short, top + short)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)
