"""Why a network cannot take some images, found out by trying others."""

from typing import Any

import torch
from torch import Tensor, nn

LARGEST = 256  # pixels: the side of the images that are tried
ERRORS = (RuntimeError, ValueError, AssertionError, TypeError, IndexError, AttributeError, KeyError)
"""What networks raise when they are given images that they cannot take."""


def advice(backbone: nn.Module, images: Tensor, error: BaseException) -> str:
    """What to do about an error of a backbone on images [N, C, H, W]: other channels, another size, or its own code.

    Channels and sizes are tried on the backbone in eval mode, so what is advised works. Leaves the modes as they were.
    """
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "There is not enough memory for it: choose a smaller network or smaller images."
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        return _channels(backbone, images) or _size(backbone, images) or _OWN_CODE
    finally:
        for module, mode in modes.items():
            module.training = mode


_OWN_CODE = "Other sizes and channels do not help, so it is the network's own code: --debug shows where it fails."


def _channels(backbone: nn.Module, images: Tensor) -> str:
    given = images.shape[1]
    first = next((part for part in backbone.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels == given:
        return ""
    size = (len(images), first.in_channels, *images.shape[2:])
    if not _takes(backbone, images.new_zeros(size)):
        return ""
    return (
        f"It takes {first.in_channels} channels and is given {given}. A factory that has a parameter in_chans is told "
        "the data's; otherwise let the module state what it takes by its attributes mean and std, a number for each "
        "channel: grey images are repeated and colour made grey."
    )


def _size(backbone: nn.Module, images: Tensor) -> str:
    side = images.shape[-1]
    for other in sorted({*_stated(backbone), *(side * k for k in (2, 4, 8)), 224} - {side}):
        if 0 < other <= LARGEST and _takes(backbone, images.new_zeros(*images.shape[:2], other, other)):
            if other < side:
                return f"It takes images of {other} pixels: let the module state that by an attribute size."
            return (
                f"It takes images of {other} pixels. Choose a shallower network or larger images (--size {other}, of "
                f"photographs), or have them resized for it: --teacher_size {other}; a module of yours states it by an "
                "attribute size."
            )
    return ""


def _stated(backbone: nn.Module) -> list[int]:
    """The side of the images that timm's, torchvision's and Hugging Face's networks say they take."""
    record: Any = getattr(backbone, "pretrained_cfg", None) or {}
    sizes = [(record.get("input_size") or (None,))[-1], getattr(backbone, "image_size", None)]
    sizes.append(getattr(getattr(backbone, "config", None), "image_size", None))
    return [size for size in sizes if isinstance(size, int)]


def _takes(backbone: nn.Module, images: Tensor) -> bool:
    try:
        with torch.no_grad():
            backbone(images)
    except Exception:  # whatever the network raises, these images are not the way out
        return False
    return True
