"""Cross-view consistency, row by row: Zhang et al. 2024 (ACM Multimedia)."""

import torch
from torch import Tensor

from tests.oracles.kd import divergence


def consistency(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    weights: tuple[float, float],
    thresholds: tuple[float, float],
    temperature: float,
) -> Tensor:
    """Of (weak, strong) logits [B, K]; weights of (within, cross); thresholds on (weak, strong)."""
    total = torch.zeros((), dtype=torch.float64)
    for s_weak, s_strong, t_weak, t_strong in zip(*student, *teacher, strict=True):
        within = divergence(t_weak, s_weak, temperature) + divergence(t_strong, s_strong, temperature)
        cross = divergence(t_weak, s_strong, temperature) + divergence(t_strong, s_weak, temperature)
        for weight, part, seen, low in zip(weights, (within, cross), (t_weak, t_strong), thresholds, strict=True):
            if max(seen.softmax(0).tolist()) >= low:
                total = total + weight * part
    return total / len(student[0])
