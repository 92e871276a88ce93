"""A backbone that takes images in [0, 1] and normalises them for itself."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.models.taps import Shapes, Tap, find_taps, probe
from sskd.models.zoo import resolve


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, for pixels in [0, 1], and where they came from.

    Raises:
        UserError: mean and std differ in length, are not finite, or a std is not above 0: images would become NaN.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str

    def __post_init__(self) -> None:
        mean, std = self.mean, self.std
        if len(mean) != len(std) or not all(map(math.isfinite, (*mean, *std))) or not all(value > 0 for value in std):
            raise UserError(
                f"The normalisation from {self.origin} cannot be used: mean {list(mean)}, std {list(std)}. "
                "Give as many finite numbers in each as the images have channels, and a std above 0."
            )


class Network(nn.Module):
    """An image classifier with its own normalisation. Its state is the backbone's alone, so that timm can load it."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: str,
        backbone: nn.Module,
        normalisation: Normalisation,
        class_names: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.title = architecture
        self.class_names = class_names
        self.normalisation = normalisation
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, -1, 1, 1), persistent=False)
        self.taps = {name: Tap(f"backbone.{tap.module}", tap.at) for name, tap in find_taps(backbone).items()}

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Logits of images in [0, 1]."""
        logits: Tensor = self.backbone((images - self.mean) / self.std)
        return logits

    def shapes(self, image_shape: tuple[int, int, int]) -> Shapes:
        """The shape at every tap for images of this shape.

        Raises:
            UserError: the network cannot take such images, or a tap cannot be read.
        """
        weight = next(self.parameters())
        image = torch.zeros(1, *image_shape, device=weight.device, dtype=weight.dtype)
        if image_shape[0] != self.mean.shape[1]:
            raise UserError(
                f"{self.title} takes images of {self.mean.shape[1]} channels; the data has {image_shape[0]}. "
                "Use a network that was trained on such images."
            )
        try:
            return probe(self, self.taps, image)
        except (RuntimeError, ValueError, AssertionError) as error:
            size = "x".join(str(n) for n in image_shape)
            raise UserError(
                f"{self.title} cannot take images of {size} (channels x height x width): {error}. "
                "Choose a shallower network or larger images."
            ) from error

    def weights_hash(self) -> str:
        """SHA-256 over all parameters and buffers of the backbone and over its normalisation."""
        digest = hashlib.sha256(repr((self.normalisation.mean, self.normalisation.std)).encode())
        for key, value in sorted(self.backbone.state_dict().items()):
            digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def create_network(name: str, class_names: tuple[str, ...], channels: int, normalisation: Normalisation) -> Network:
    """A freshly initialised network of the zoo or of timm, drawn from torch's default generator.

    Raises:
        UserError: an unknown name, with the nearest known ones; one that cannot be built.
    """
    backbone = build(name, len(class_names), channels)
    return Network(resolve(name), backbone, normalisation, class_names)


def build(name: str, classes: int, channels: int, **arguments: Any) -> nn.Module:
    """A freshly initialised backbone of the zoo or of timm, with a classifier of so many classes.

    Raises:
        UserError: an unknown name or tag, a folder or hub address that cannot be read, arguments that do not fit.
    """
    architecture = resolve(name)
    arguments = {"in_chans": channels, **arguments, "num_classes": classes}
    try:
        backbone: nn.Module = timm.create_model(architecture, **arguments)
    except Exception as error:  # timm raises whatever its models, the hub's client or the file system raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"The network {name} cannot be built for {classes} classes and {channels} channels: {reason}. "
            "Check the name, tag or folder; sskd list models shows the zoo."
        ) from error
    return backbone
