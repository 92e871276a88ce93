"""Refined logits, row by row: Sun et al. 2025 (ICCV), alpha SCD + beta MCD."""

import torch
from torch import Tensor

from tests.oracles.dkd import binary
from tests.oracles.kd import divergence


def refined(student: Tensor, teacher: Tensor, labels: list[int], temperature: float, confidence: float) -> list[Tensor]:
    """(SCD, MCD), averaged over the rows [B, K]."""
    scd, mcd = (torch.zeros((), dtype=torch.float64) for _ in range(2))
    for s, t, label in zip(student, teacher, labels, strict=True):
        values = t.tolist()
        top = values.index(max(values))
        for p, q in zip(binary(t / confidence, top), binary(s / confidence, label), strict=True):
            scd = scd + confidence**2 * p * torch.log(p / q)
        below = [k for k, value in enumerate(values) if value < values[label]]
        if below:
            mcd = mcd + divergence(t[below], s[below], temperature)
    return [scd / len(labels), mcd / len(labels)]
