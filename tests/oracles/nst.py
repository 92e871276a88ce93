"""Neuron selectivity transfer, pair by pair of channels: Huang and Wang 2017, section 4, with (x'y)^2 as kernel."""

import torch
from torch import Tensor

from tests.oracles.at import same_size, unit


def kernel_mean(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Mean of (x'y)^2 over all pairs of a vector x of the one list and y of the other."""
    total = torch.zeros((), dtype=torch.float64)
    for x in a:
        for y in b:
            dot = (x * y).sum()
            total = total + dot * dot
    return total / (len(a) * len(b))


def squared_mmd(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Per image, channels [H W] of length 1 as samples: tt + ss - 2 st, averaged over the images."""
    total = torch.zeros((), dtype=torch.float64)
    for student, teacher in zip(*same_size(student_map, teacher_map), strict=True):
        s = [unit(channel.flatten()) for channel in student.unbind()]
        t = [unit(channel.flatten()) for channel in teacher.unbind()]
        total = total + kernel_mean(t, t) + kernel_mean(s, s) - 2 * kernel_mean(s, t)
    return total / len(student_map)
