"""Modules that bring a student's values to the shape of a teacher's."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Map = tuple[int, int, int]


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
