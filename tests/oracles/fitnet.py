"""Hints, image by image: Romero et al. 2015, equation 3 (as a mean instead of half a sum)."""

import torch
from torch import Tensor


def hint(student_regressed: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all entries of two maps [B, C, H, W] of the squared difference."""
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for s_image, t_image in zip(student_regressed.unbind(), teacher.unbind(), strict=True):
        for s_channel, t_channel in zip(s_image.unbind(), t_image.unbind(), strict=True):
            for s, t in zip(s_channel.flatten().unbind(), t_channel.flatten().unbind(), strict=True):
                total = total + (s - t) * (s - t)
                count += 1
    return total / count
