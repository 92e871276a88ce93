"""Encoded images made into pixels, whatever their mode."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import BmpImagePlugin, IcoImagePlugin, Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from sskd.reading import MAX_PIXELS

# Pillow's bound is one global of the process, and threads decode at the same time, so it cannot be set around a single
# decoding. It would refuse what the user allows: `_opened`, through which all images pass, checks `max_pixels` instead.
Image.MAX_IMAGE_PIXELS = None
# What Pillow may take an image for, whatever its name says. Left out are kinds that run other programs (EPS) and stubs.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "ICO", "PCX", "SGI"),
    *(("AVIF",) if find_spec("PIL._avif") else ()),
    "TGA",  # last: it has no signature
)
ICON, PNG = b"\0\0\1\0", b"\x89PNG\r\n\x1a\n"  # how such files begin
ORIENTATION, SIDEWAYS = 0x0112, 5  # EXIF; from 5 on height and width change places
GREY = ("L", "1", "LA", "I", "I;16", "I;16B", "I;16L", "F")


def open_image(data: bytes | None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image, turned upright, in mode L if it is grey and RGB otherwise; see `upright`.

    Raises:
        ValueError: there are no bytes, more than `max_pixels` pixels, or values that have no known range (mode F).
        Exception: whatever the decoder runs into, from OSError to SyntaxError.
    """
    with _opened(data, max_pixels) as image:
        image.load()
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """A decoded image in mode L if it is grey and RGB otherwise, turned as its EXIF says.

    CMYK and palettes become RGB, transparent parts white, more than 8 bits a channel are scaled to 8.

    Raises:
        ValueError: its values have no known range (mode F).
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its values are floating-point numbers of no known range")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        image = Image.alpha_composite(white, coloured).convert("L" if image.mode in GREY else "RGB")
    return image.convert("L" if image.mode in GREY else "RGB")


@contextmanager
def _opened(data: bytes | None, max_pixels: int) -> Iterator[Image.Image]:
    """The image with its header read, and nothing decoded."""
    if data is None:
        raise ValueError("it holds no bytes")
    if data.startswith(ICON):
        _bounded(_icon_size(data), max_pixels)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _bounded(image.size, max_pixels)
        yield image


def _bounded(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ValueError(f"it has {height:,}x{width:,} pixels, more than {max_pixels:,} in all (--reading.max_pixels)")


def _icon_size(data: bytes) -> tuple[int, int]:
    """Size of the image in an icon, which Pillow decodes while it opens it, whatever size the icon itself states."""
    inner = io.BytesIO(data[IcoImagePlugin.IcoFile(io.BytesIO(data)).entry[0].offset :])
    kind = PngImagePlugin.PngImageFile if inner.getvalue().startswith(PNG) else BmpImagePlugin.DibImageFile
    with kind(inner) as image:
        return image.size


def header(data: bytes | None, max_pixels: int = MAX_PIXELS) -> tuple[tuple[int, int], bool]:
    """Height and width, upright, and whether the image is grey, from its header; Pillow decodes a PNG for its EXIF.

    Raises:
        ValueError: it has more than `max_pixels` pixels.
        Exception: whatever the decoder runs into.
    """
    with _opened(data, max_pixels) as image:
        turned = image.getexif().get(ORIENTATION, 1) >= SIDEWAYS
        return (image.size if turned else image.size[::-1]), image.mode in GREY


def stated_mode(data: bytes | None, max_pixels: int) -> str:
    """The mode that the image's header states: RGB, L, P, CMYK ...

    Raises:
        Exception: whatever the decoder runs into.
    """
    with _opened(data, max_pixels) as image:
        return image.mode


def why_undecoded(error: Exception) -> str:
    """What a decoder's error says, for messages; some say nothing."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known kind"
    return str(error) or f"{type(error).__name__}, without a reason"


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
