"""Flow of the solution procedure, pair by pair of channels: Yim et al. 2017, equations 1 and 2."""

import torch
from torch import Tensor

from tests.oracles.at import same_size


def flow_matrices(lower: Tensor, upper: Tensor) -> list[Tensor]:
    """Of two maps [B, m, H, W], [B, n, H, W]: all B m n products of two channels of an image, averaged over pixels."""
    entries = []
    for low, high in zip(*same_size(lower, upper), strict=True):
        for a in low.unbind():
            entries += [(a * b).sum() / a.numel() for b in high.unbind()]
    return entries


def pair(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Mean over images and entries of the squared difference of two maps' flow matrices."""
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for s, t in zip(flow_matrices(*student), flow_matrices(*teacher), strict=True):
        total = total + (s - t) * (s - t)
        count += 1
    return total / count


def flow(student_maps: list[Tensor], teacher_maps: list[Tensor]) -> Tensor:
    """The losses of neighbouring maps, summed over the pairs."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(student_maps) - 1):
        total = total + pair((student_maps[i], student_maps[i + 1]), (teacher_maps[i], teacher_maps[i + 1]))
    return total
