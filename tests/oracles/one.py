"""On-the-fly native ensemble, row by row: Lan et al. 2018 (NeurIPS), gated ensemble and its distillation loss."""

import math

import torch
from torch import Tensor

from tests.oracles.ce import cross_entropy
from tests.oracles.kd import divergence


def ensemble(branch_logits: list[Tensor], gate: Tensor) -> Tensor:
    """sum_i g_i z_i per row: n branches [B,K] and a softmaxed gate [B,n]."""
    rows = []
    for b in range(len(gate)):
        row = torch.zeros(branch_logits[0].shape[1], dtype=torch.float64)
        for i, logits in enumerate(branch_logits):
            row = row + gate[b, i] * logits[b]
        rows.append(row)
    return torch.stack(rows)


def ramp(epoch: int, length: float) -> float:
    """The weight of KL in an epoch, counted from 0: exp(-5 (1 - e / length)^2), and 1 from `length` on."""
    return math.exp(-5 * (1 - epoch / length) ** 2) if epoch < length else 1.0


def losses(
    branch_logits: list[Tensor], gate: Tensor, labels: list[int], temperature: float = 3.0, weight: float = 1.0
) -> Tensor:
    """CE of each branch + CE of the ensemble + weight x T^2 KL from the ensemble, a constant there, to each branch."""
    together = ensemble(branch_logits, gate)
    total = cross_entropy(together, labels)
    for logits in branch_logits:
        total = total + cross_entropy(logits, labels)
        for teacher, student in zip(together.detach(), logits, strict=True):
            total = total + weight * divergence(teacher, student, temperature) / len(labels)
    return total
