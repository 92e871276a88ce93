"""Activation boundaries, neuron by neuron: Heo et al. 2019, the margin loss."""

import torch
from torch import Tensor


def layer(student_connected: Tensor, teacher_pre: Tensor, margin: float = 1.0) -> Tensor:
    """Summed over a layer's neurons: max(0, m - s)^2 where the teacher's is active (t > 0), max(0, m + s)^2 else."""
    if student_connected.shape != teacher_pre.shape:
        raise ValueError(f"{student_connected.shape} against {teacher_pre.shape}")
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(student_connected.flatten().unbind(), teacher_pre.flatten().tolist(), strict=True):
        excess = margin - s if t > 0 else margin + s
        if excess.item() > 0:
            total = total + excess * excess
    return total


def boundary(student_connected: list[Tensor], teacher_pre: list[Tensor], margin: float = 1.0) -> Tensor:
    """Layer i of L weighted 2^(i - L + 1) x 3 / 1000 / B, summed."""
    total = torch.zeros((), dtype=torch.float64)
    layers = len(student_connected)
    for i, (s, t) in enumerate(zip(student_connected, teacher_pre, strict=True)):
        total = total + layer(s, t, margin) * 3 / 1000 / len(s) / 2 ** (layers - 1 - i)
    return total
