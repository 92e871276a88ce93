"""Soft targets, row by row: Hinton et al. 2015, section 2; Sun et al. 2024, equation 9."""

import torch
from torch import Tensor

from tests.oracles.ce import log_probability


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T^2 sum_k p_k (log p_k - log q_k) of two rows [K], p and q their softmaxes at temperature T."""
    total = torch.zeros((), dtype=torch.float64)
    for k in range(len(teacher)):
        log_p = log_probability(teacher / temperature, k)
        log_q = log_probability(student / temperature, k)
        total = total + torch.exp(log_p) * (log_p - log_q)
    return temperature * temperature * total


def z_score(row: Tensor) -> Tensor:
    """(x - mean) / (std + 1e-7), std with K - 1."""
    mean = row.sum() / len(row)
    return (row - mean) / ((((row - mean) ** 2).sum() / (len(row) - 1)) ** 0.5 + 1e-7)


def soft_targets(teacher: Tensor, student: Tensor, temperature: float, standardised: bool = False) -> Tensor:
    """The divergence, averaged over the rows [B, K]."""
    total = torch.zeros((), dtype=torch.float64)
    for t, s in zip(teacher, student, strict=True):
        target, prediction = (z_score(t), z_score(s)) if standardised else (t, s)
        total = total + divergence(target, prediction, temperature)
    return total / len(student)
