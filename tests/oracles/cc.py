"""Correlation congruence as the CRD paper's comparison has it, row by row: after Peng et al. 2019, section 3."""

import torch
from torch import Tensor


def correlation(student_embedded: Tensor, teacher_embedded: Tensor) -> Tensor:
    """Absolute differences d_i = |s_i - t_i|; mean over the B - 1 neighbouring rows of the dot product d_i d_{i+1}."""
    gaps = [torch.abs(s - t) for s, t in zip(student_embedded.unbind(), teacher_embedded.unbind(), strict=True)]
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(gaps) - 1):
        for a, b in zip(gaps[i].unbind(), gaps[i + 1].unbind(), strict=True):
            total = total + a * b
    return total / (len(gaps) - 1)
