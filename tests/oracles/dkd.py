"""Decoupled distillation, row by row: Zhao et al. 2022 (CVPR), alpha TCKD + beta NCKD."""

import torch
from torch import Tensor

from tests.oracles.ce import log_probability


def binary(row: Tensor, label: int) -> list[Tensor]:
    """Probabilities of the label and of everything else."""
    chances = [torch.exp(log_probability(row, k)) for k in range(len(row))]
    rest = torch.zeros((), dtype=torch.float64)
    for k in range(len(row)):
        if k != label:
            rest = rest + chances[k]
    return [chances[label], rest]


def target_part(student: Tensor, teacher: Tensor, label: int) -> Tensor:
    """TCKD of two rows [K]: KL of the binary probabilities."""
    total = torch.zeros((), dtype=torch.float64)
    for p, q in zip(binary(teacher, label), binary(student, label), strict=True):
        total = total + p * torch.log(p / q)
    return total


def other_part(student: Tensor, teacher: Tensor, label: int) -> Tensor:
    """NCKD of two rows [K]: KL of the softmaxes over the K - 1 other classes."""
    others = [k for k in range(len(student)) if k != label]
    s = torch.stack([student[k] for k in others])
    t = torch.stack([teacher[k] for k in others])
    total = torch.zeros((), dtype=torch.float64)
    for k in range(len(others)):
        log_p = log_probability(t, k)
        total = total + torch.exp(log_p) * (log_p - log_probability(s, k))
    return total


def decoupled(
    student_logits: Tensor, teacher_logits: Tensor, labels: list[int], alpha: float, beta: float, temperature: float
) -> Tensor:
    """T^2 (alpha TCKD + beta NCKD), averaged over the rows [B,K]."""
    total = torch.zeros((), dtype=torch.float64)
    for student, teacher, label in zip(student_logits, teacher_logits, labels, strict=True):
        s, t = student / temperature, teacher / temperature
        total = total + alpha * target_part(s, t, label) + beta * other_part(s, t, label)
    return temperature * temperature * total / len(labels)
