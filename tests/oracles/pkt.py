"""Probabilistic knowledge transfer, pair by pair: Passalis and Tefas 2018, with the cosine kernel."""

import torch
from torch import Tensor


def probabilities(rows: Tensor, i: int) -> list[Tensor]:
    """Of row i's neighbours, itself among them: (cosine + 1) / 2 over its sum, with length + 1e-7 in the cosine."""
    scaled = [row / (torch.sqrt((row * row).sum()) + 1e-7) for row in rows.unbind()]
    kernel = [((scaled[i] * other).sum() + 1) / 2 for other in scaled]
    total = torch.stack(kernel).sum()
    return [k / total for k in kernel]


def probabilistic(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all B^2 pairs of p_t log((p_t + 1e-7) / (p_s + 1e-7))."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(student)):
        for s, t in zip(probabilities(student, i), probabilities(teacher, i), strict=True):
            total = total + t * torch.log((t + 1e-7) / (s + 1e-7))
    return total / len(student) ** 2
