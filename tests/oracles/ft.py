"""Factor transfer, image by image: Kim et al. 2018, section 3, on the factor's mean over channels of squares."""

import torch
from torch import Tensor

from tests.oracles.at import attention_map, same_size


def factor(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean over images and pixels of the absolute difference of the maps' mean squares, scaled to length 1 an image."""
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for student, teacher in zip(*same_size(student_map, teacher_map), strict=True):
        for s, t in zip(attention_map(student).unbind(), attention_map(teacher).unbind(), strict=True):
            total = total + torch.abs(s - t)
            count += 1
    return total / count


def reconstruction(reconstructed: Tensor, original: Tensor) -> Tensor:
    """Mean over all entries of two maps [B, C, H, W] of the squared difference."""
    if reconstructed.shape != original.shape:
        raise ValueError(f"{reconstructed.shape} against {original.shape}")
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for a, b in zip(reconstructed.flatten().unbind(), original.flatten().unbind(), strict=True):
        total = total + (a - b) * (a - b)
        count += 1
    return total / count
