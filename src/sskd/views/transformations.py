"""What is done to the views that a head is asked about: the paper's four transformations, for each view on its own.

All draws come from the step's generator, on the CPU; images stay on their device. Colours are kornia's, whose functions
take one factor for each image (torchvision's take one for all).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sskd.data.crops import Resized, box_grid
from sskd.data.feed import ALONE, Share
from sskd.errors import UserError, unknown
from sskd.memory import sent
from sskd.views.rotations import rotated

RGB, GREY = 3, 1  # channels


class Transformation(Protocol):
    """One kind of change."""

    @property
    def channels(self) -> tuple[int, ...] | None:
        """How many channels images must have; None for any number."""
        ...

    def draw(self, count: int, side: int, generator: torch.Generator) -> Float64[Tensor, "count P"]:
        """What is to be done to so many images of `side` pixels."""
        ...

    def __call__(self, images: Float[Tensor, "n C S S"], drawn: Float64[Tensor, "n P"]) -> Float[Tensor, "n C S S"]:
        """The images, changed."""
        ...

    def asked(self, drawn: Float64[Tensor, "n P"]) -> Int64[Tensor, "n"]:
        """The number by which `Batch.asked` says what was done; 0 is the plain view."""
        ...


class Turned:
    """Rotated counter-clockwise by 90, 180 or 270 degrees, each as often: 1, 2, 3."""

    channels = None

    def draw(self, count: int, side: int, generator: torch.Generator) -> Float64[Tensor, "count 1"]:
        """Quarter turns."""
        return torch.randint(1, 4, (count, 1), generator=generator).double()

    def __call__(self, images: Float[Tensor, "n C S S"], drawn: Float64[Tensor, "n 1"]) -> Float[Tensor, "n C S S"]:
        """Rotate."""
        turns = sent(self.asked(drawn), images.device)
        each = torch.arange(len(images), device=images.device)
        return torch.stack([torch.rot90(images, k, (-2, -1)) for k in (1, 2, 3)])[turns - 1, each]

    def asked(self, drawn: Float64[Tensor, "n 1"]) -> Int64[Tensor, "n"]:
        """The quarter turns."""
        return drawn[:, 0].long()


class Grey:
    """Colours dropped: the luminance (.299, .587, .114) in all three channels: 4."""

    channels = (RGB,)

    def draw(self, count: int, side: int, generator: torch.Generator) -> Float64[Tensor, "count 0"]:
        """Nothing."""
        return torch.empty(count, 0, dtype=torch.float64)

    def __call__(self, images: Float[Tensor, "n 3 S S"], drawn: Float64[Tensor, "n 0"]) -> Float[Tensor, "n 3 S S"]:
        """Drop the colours."""
        from kornia.color import rgb_to_grayscale  # takes half a second to import

        grey: Tensor = rgb_to_grayscale(images)
        return grey.expand(-1, RGB, -1, -1)

    def asked(self, drawn: Float64[Tensor, "n 0"]) -> Int64[Tensor, "n"]:
        """One number for all."""
        return torch.full((len(drawn),), 4)


class Zoomed:
    """A random box of 8 to 100 % of the area and 3/4 to 4/3 of sides, resized to the image's own size: 5."""

    channels = None

    def draw(self, count: int, side: int, generator: torch.Generator) -> Float64[Tensor, "count 4"]:
        """Left, top, right, bottom, in pixels."""
        return Resized(side).boxes(side, side, count, generator)

    def __call__(self, images: Float[Tensor, "n C S S"], drawn: Float64[Tensor, "n 4"]) -> Float[Tensor, "n C S S"]:
        """Cut and resize, bilinear; a box is never larger than the image, so nothing is lost between pixels."""
        side, boxes = images.shape[-1], sent(drawn.to(images.dtype), images.device)
        grid = box_grid(boxes, side, side, side)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def asked(self, drawn: Float64[Tensor, "n 4"]) -> Int64[Tensor, "n"]:
        """One number for all."""
        return torch.full((len(drawn),), 5)


class Coloured:
    """Brightness, contrast and saturation x 0.2 to 1.8, hue turned by up to a fifth either way, in a random order: 6.

    SimCLR's strength .8, .8, .8, .2. Of grey images, brightness and contrast.
    """

    channels = (GREY, RGB)
    strength, hue = 0.8, 0.2

    def draw(self, count: int, side: int, generator: torch.Generator) -> Float64[Tensor, "count 8"]:
        """Three factors, the turn of the hue in turns, and four numbers whose order is that of the four changes."""
        drawn = torch.rand(count, 8, generator=generator, dtype=torch.float64)
        drawn[:, :3] = 1 + self.strength * (2 * drawn[:, :3] - 1)
        drawn[:, 3] = self.hue * (2 * drawn[:, 3] - 1)
        return drawn

    def __call__(self, images: Float[Tensor, "n C S S"], drawn: Float64[Tensor, "n 8"]) -> Float[Tensor, "n C S S"]:
        """At each of four places each change goes to those images whose turn it is."""
        from kornia import enhance  # takes half a second to import

        changes = [enhance.adjust_brightness_accumulative, enhance.adjust_contrast_with_mean_subtraction]
        if images.shape[1] == RGB:
            changes += [enhance.adjust_saturation_with_gray_subtraction, enhance.adjust_hue]
        made, order = images.clone(), drawn[:, 4:].argsort(1)
        factors = drawn[:, :4].clone()
        factors[:, 3] *= 2 * math.pi
        for place in range(4):
            for i, change in enumerate(changes):
                rows = (order[:, place] == i).nonzero()[:, 0]
                if len(rows):
                    there, factor = sent(rows, images.device), sent(factors[rows, i].to(images.dtype), images.device)
                    made[there] = change(made[there], factor)
        return made

    def asked(self, drawn: Float64[Tensor, "n 8"]) -> Int64[Tensor, "n"]:
        """One number for all."""
        return torch.full((len(drawn),), 6)


TRANSFORMATIONS: dict[str, Transformation] = {
    "rotation": Turned(),
    "colour_dropping": Grey(),
    "crop_resize": Zoomed(),
    "colour_distortion": Coloured(),
}

COLOURS = ("colour_dropping", "colour_distortion")
"""Those that need images in [0, 1]."""


@dataclass(frozen=True)
class Transformations:
    """Makes views of crops: each view but the first by one of `names`, drawn uniformly.

    Rotation alone is the released code's way: the views are the three rotations, in order, and nothing is drawn.
    """

    names: tuple[str, ...] = ("rotation",)

    @property
    def suffix(self) -> str:
        """What tells a pretext with these transformations from the same with rotation alone."""
        return "" if self.names == ("rotation",) else f" of {'+'.join(self.names)}"

    def __call__(
        self, crops: Float[Tensor, "B V C S S"], generator: torch.Generator, share: Share = ALONE
    ) -> tuple[Float[Tensor, "B V C S S"], Int64[Tensor, "B V"]]:
        """The views, and what was done to each; see `Views.transform`.

        The draws of every kind are made for every view, so that a view's do not depend on what its neighbours drew.
        """
        if self.names == ("rotation",):
            return rotated(crops)
        (size, views), side = crops.shape[:2], crops.shape[-1]
        whole = size * share.size, views - 1
        kind = share.of(torch.randint(len(self.names), whole, generator=generator))
        made, asked = crops.clone(memory_format=torch.contiguous_format), torch.zeros(size, views, dtype=torch.int64)
        for i, name in enumerate(self.names):
            change = TRANSFORMATIONS[name]
            drawn = share.of(torch.unflatten(change.draw(math.prod(whole), side, generator), 0, whole))
            image, view = (kind == i).nonzero(as_tuple=True)
            if len(image):
                mine, places = drawn[image, view], (sent(image, crops.device), sent(view + 1, crops.device))
                asked[image, view + 1] = change.asked(mine)
                made[places] = change(made[places], mine)
        return made, sent(asked, crops.device)


ROTATION = Transformations()


def transformations_of(names: str | Sequence[str], channels: int) -> tuple[Transformations, tuple[str, ...]]:
    """The transformations of these names, or of one name, or "all"; and what was left out of all, where some do not
    apply to images of so many channels.

    Raises:
        UserError: none, an unknown one, one twice, or one that needs colours where there are none.
    """
    given = [*TRANSFORMATIONS] if names == "all" else [names] if isinstance(names, str) else [*names]
    for name in given:
        if name not in TRANSFORMATIONS:
            raise unknown("transformation", name, [*TRANSFORMATIONS, "all"])
    if not given or len({*given}) < len(given):
        raise UserError(f"transformations are one or more of {', '.join(TRANSFORMATIONS)}, or all; got {given}.")
    fit = tuple(name for name, change in TRANSFORMATIONS.items() if channels in (change.channels or (channels,)))
    chosen, unfit = (
        tuple(name for name in TRANSFORMATIONS if name in given and (name in fit) is b) for b in (True, False)
    )
    idle = f"{', '.join(unfit)} would do nothing to images of {channels} channel{'' if channels == 1 else 's'}"
    if unfit and names != "all":
        raise UserError(f"{idle}. What can be done to them: {', '.join(fit)}.")
    return Transformations(chosen), (f"transformations: {idle}; all are {', '.join(fit)} here.",) if unfit else ()
