"""Images in arrays, tensors and PIL images, made uint8 with the channels first."""

import io
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from sskd.data.decode import to_pixels, upright
from sskd.errors import UserError

Pixels = UInt8[Tensor, "C H W"]
Array = np.ndarray[Any, Any]


def described(part: object) -> str:
    """What a value is, for messages: its type, and its shape where it has one."""
    shape = f" of shape {list(part.shape)}" if hasattr(part, "shape") else ""
    return f"a {type(part).__module__}.{type(part).__qualname__}{shape}".replace("a builtins.", "a ")


def to_array(values: Any) -> Array:
    """A tensor, array or list as a NumPy array."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float().numpy() if values.is_floating_point() else values.numpy()  # NumPy has no bfloat16
    return np.asarray(values)


def to_uint8(images: Any, name: str) -> UInt8[Tensor, "N C H W"] | list[Pixels]:
    """uint8 images, channels first: in one tensor where they came in one array.

    Args:
        images: an array, or a list of arrays and PIL images: uint8 from 0 to 255 or floats from 0 to 1, of shape
            [N, H, W], [N, C, H, W] or [N, H, W, C] with 1 or 3 channels; the items of a list have no N.
        name: of the split, for messages.

    Raises:
        UserError: another type, shape or range, with what came.
    """
    if not len(images):
        raise UserError(f"The {name} split that was handed over holds no images.")
    if not isinstance(images, np.ndarray):
        shapes = {(one.shape, one.dtype) for one in images if isinstance(one, np.ndarray)}
        if len(shapes) == 1 and all(isinstance(one, np.ndarray) for one in images):
            return to_uint8(np.stack(images), name)
        return [_one(image, i, name) for i, image in enumerate(images)]
    if images.ndim == 3:
        images = images[:, None]
    return torch.from_numpy(np.ascontiguousarray(_channels_first(_uint8(images, name), name)))


def _one(image: Any, i: int, name: str) -> Pixels:
    """One image of a list: a PIL image or an array."""
    where = f"{name} split, item {i} from 0"
    if isinstance(image, Image.Image):
        try:
            decoded = upright(image)
        except (ValueError, OSError) as error:
            raise UserError(f"The image of the {where}, cannot be used: {error}.") from error
        return to_pixels(decoded, len(decoded.getbands()))
    array = to_array(image)
    if array.ndim not in (2, 3):
        raise UserError(
            f"The image of the {where}, is {described(image)}; expected a PIL image or [H, W], [C, H, W], [H, W, C]."
        )
    array = array[None, None] if array.ndim == 2 else array[None]
    return torch.from_numpy(np.ascontiguousarray(_channels_first(_uint8(array, where), where)[0]))


def _channels_first(images: Array, name: str) -> Array:
    shape = list(images.shape)
    first, last = (images.ndim == 4 and images.shape[axis] in (1, 3) for axis in (1, 3))
    if first and last:
        raise UserError(
            f"Images of shape {shape} ({name}) have their channels first or last: both fit. Hand over PIL images."
        )
    if not first and not last:
        raise UserError(
            f"Images of shape {shape} ({name}) are neither [N, C, H, W] nor [N, H, W, C] with 1 or 3 channels, nor "
            "[N, H, W]."
        )
    return images if first else images.transpose(0, 3, 1, 2)


def _uint8(values: Array, name: str) -> Array:
    """Values as uint8: floats are shares of 255, whole numbers are taken as they are.

    Raises:
        UserError: values out of range, of which it says the range.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind not in "fiu":
        raise UserError(f"Images of type {values.dtype} ({name}); expected uint8 from 0 to 255, or floats from 0 to 1.")
    low, high = (float(one) for one in (values.min(), values.max()))
    most = 1 if values.dtype.kind == "f" else 255
    if not 0 <= low <= high <= most:
        raise UserError(
            f"Images of type {values.dtype} ({name}) have values from {low:.4g} to {high:.4g}; expected 0 to {most}. "
            "Hand them over before any normalisation: each network normalises for itself."
        )
    if most == 255:
        return values.astype(np.uint8)
    values = values.astype(np.float32) if values.dtype == np.float16 else values
    shares: Array = np.rint(values * values.dtype.type(255))
    return shares.astype(np.uint8)


def png(pixels: Pixels) -> bytes:
    """An image as a PNG file."""
    array, buffer = pixels.permute(1, 2, 0).numpy(), io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
