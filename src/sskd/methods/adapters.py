"""Losses on feature maps, and modules that bring a student's maps to the shape of a teacher's."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.methods.logits import check_batch

Map = tuple[int, int, int]
Maps = Sequence[Tensor]
"""Feature maps [B, C, H, W] of one network, of several stages from shallow to deep."""


class Regressor(nn.Module):
    """A convolution from a student's maps to the channels and the size of a teacher's, with batch norm and ReLU.

    By the sides S and T of the maps: 3x3 with stride 2 where S = 2 T, transposed 4x4 with stride 2 where 2 S = T,
    else S - T + 1 square without padding (1x1 where S = T), as in the widely used code of FitNet and AB. Where T is
    larger in another way, that code refuses; here the convolution is 1x1 and `match` pools the teacher's map.
    """

    def __init__(self, student: Map, teacher: Map, relu: bool = True) -> None:
        super().__init__()
        (channels, height, width), (out, t_height, t_width) = student, teacher
        self.conv: nn.Module
        if (height, width) == (2 * t_height, 2 * t_width):
            self.conv = nn.Conv2d(channels, out, 3, stride=2, padding=1)
        elif (2 * height, 2 * width) == (t_height, t_width):
            self.conv = nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1)
        elif height >= t_height and width >= t_width:
            self.conv = nn.Conv2d(channels, out, (1 + height - t_height, 1 + width - t_width))
        else:
            self.conv = nn.Conv2d(channels, out, 1)
        self.bn = nn.BatchNorm2d(out)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Convolve, normalise, activate."""
        y: Tensor = self.relu(self.bn(self.conv(x)))
        return y


def match(
    student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B D h w"]
) -> tuple[Float[Tensor, "B C m n"], Float[Tensor, "B D m n"]]:
    """Both maps, averaged to the smaller of their sizes."""
    height, width = (min(a, b) for a, b in zip(student.shape[-2:], teacher.shape[-2:], strict=True))
    return pooled(student, height, width), pooled(teacher, height, width)


def pooled(maps: Float[Tensor, "B C H W"], height: int, width: int) -> Float[Tensor, "B C h w"]:
    """Maps averaged to this size; as they are where they have it."""
    return maps if maps.shape[-2:] == (height, width) else F.adaptive_avg_pool2d(maps, (height, width))


def check_maps(student: Maps, teacher: Maps) -> None:
    """Refuse maps that cannot be compared stage by stage.

    Raises:
        UserError: no stages, or unequal numbers of them; values that are no maps [B, C, H, W]; other batches.
    """
    if isinstance(student, Tensor) or isinstance(teacher, Tensor):
        raise UserError("This loss compares several stages: give a list of maps [B, C, H, W] of each network.")
    if len(student) != len(teacher) or not len(student):
        raise UserError(
            f"This loss compares stage by stage; it was given {len(student)} maps of the student and {len(teacher)} of "
            "the teacher. Give as many of both, from shallow to deep."
        )
    for s, t in zip(student, teacher, strict=True):
        check_map(s, t)


def check_stages(student: Sequence[object], teacher: Sequence[object]) -> None:
    """Refuse descriptions of unequal numbers of stages.

    Raises:
        UserError: names both numbers.
    """
    if len(student) != len(teacher) or not len(student):
        raise UserError(
            f"Describe as many stages of the student as of the teacher, one or more; got {len(student)} and "
            f"{len(teacher)}."
        )


def check_map(student: Tensor, teacher: Tensor) -> None:
    """Refuse values that are no maps of the same images.

    Raises:
        UserError: values that are no maps [B, C, H, W], or of other batches.
    """
    for side, maps in (("student", student), ("teacher", teacher)):
        if maps.ndim != 4:
            raise UserError(f"Feature maps are [B, C, H, W]; the {side}'s values are {list(maps.shape)}.")
    check_batch(student, teacher)


def check_channels(student: Maps, teacher: Maps) -> None:
    """Refuse maps of which neighbours cannot be compared channel by channel.

    Raises:
        UserError: fewer than two stages, or other channels; see `check_maps`.
    """
    check_maps(student, teacher)
    if len(student) < 2:
        raise UserError("This loss compares how maps follow each other: give two stages or more of each network.")
    for s, t in zip(student, teacher, strict=True):
        if s.shape[1] != t.shape[1]:
            raise UserError(
                f"This loss compares channel by channel; the student's map has {s.shape[1]} and the teacher's "
                f"{t.shape[1]}. Choose stages or networks of equal width, or ATLoss, SPLoss, VIDLoss."
            )


class StageLoss(nn.Module):
    """The sum of one comparison for each pair of stages. To be derived from."""

    def compare(
        self, i: int, student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B D h w"]
    ) -> Float[Tensor, ""]:
        """The loss of the i-th pair."""
        raise NotImplementedError

    def each(self, student: Maps, teacher: Maps) -> list[Float[Tensor, ""]]:
        """The loss of each pair.

        Raises:
            UserError: see `check_maps`.
        """
        check_maps(student, teacher)
        return [self.compare(i, s, t) for i, (s, t) in enumerate(zip(student, teacher, strict=True))]

    def forward(self, student: Maps, teacher: Maps) -> Float[Tensor, ""]:
        """Sum over the pairs of maps [B, C, H, W], from shallow to deep.

        Raises:
            UserError: unequal numbers of stages; values that are no maps; other batches.
        """
        return torch.stack(self.each(student, teacher)).sum()
