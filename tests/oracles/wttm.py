"""Transformed teacher matching, row by row: Zheng, Yang 2024 (ICLR)."""

import torch
from torch import Tensor

from tests.oracles.ce import log_probability


def matching(student: Tensor, teacher: Tensor, gamma: float, weighted: bool) -> Tensor:
    """Mean over rows [B, K] of KL(q, softmax(student)), q = p^gamma / Z; each times Z where weighted."""
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(student, teacher, strict=True):
        powers = [torch.exp(log_probability(t, k)) ** gamma for k in range(len(t))]
        z = torch.stack(powers).sum()
        row = torch.zeros((), dtype=torch.float64)
        for k, power in enumerate(powers):
            row = row + power / z * (torch.log(power / z) - log_probability(s, k))
        total = total + (z * row if weighted else row)
    return total / len(student)
