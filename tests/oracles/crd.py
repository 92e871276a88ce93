"""Contrastive representation distillation, pair by pair: Tian et al. 2020 (ICLR), the NCE form with memories."""

import torch
from torch import Tensor

EPS = 1e-7


def similarity(z: Tensor, entry: Tensor, temperature: float) -> Tensor:
    """exp(z . entry / T), two vectors [E]."""
    product = torch.zeros((), dtype=torch.float64)
    for e in range(len(z)):
        product = product + z[e] * entry[e]
    return torch.exp(product / temperature)


def one_side(
    z: Tensor, memory: Tensor, index: list[int], negatives: list[list[int]], temperature: float, size: int, norm: float
) -> Tensor:
    """-log h(positive) - sum_k log(1 - h(negative k)), averaged over the rows, h = P / (P + K / N)."""
    total = torch.zeros((), dtype=torch.float64)
    for row, positive, others in zip(z, index, negatives, strict=True):
        noise = len(others) / size
        p = similarity(row, memory[positive], temperature) / norm
        total = total - torch.log(p / (p + noise + EPS))
        for other in others:
            p = similarity(row, memory[other], temperature) / norm
            total = total - torch.log(noise / (p + noise + EPS))
    return total / len(z)


def normaliser(
    z: Tensor, memory: Tensor, index: list[int], negatives: list[list[int]], temperature: float, size: int
) -> float:
    """Z: the mean of the batch's B (K + 1) scores, times N; a constant."""
    scores = []
    for row, positive, others in zip(z.detach(), index, negatives, strict=True):
        scores += [float(similarity(row, memory[n], temperature)) for n in [positive, *others]]
    return sum(scores) / len(scores) * size


def contrast(
    student_z: Tensor,
    teacher_z: Tensor,
    memory_student: Tensor,
    memory_teacher: Tensor,
    index: list[int],
    negatives: list[list[int]],
    temperature: float,
    size: int,
    z_student: float | None = None,
    z_teacher: float | None = None,
) -> tuple[Tensor, float, float]:
    """Student against the teacher's memory plus teacher against the student's; Z of either where None is given.

    Embeddings [B,E], memories [N,E], `negatives` K a row without the positive. The memories are not changed.
    """
    if z_student is None:
        z_student = normaliser(student_z, memory_teacher, index, negatives, temperature, size)
    if z_teacher is None:
        z_teacher = normaliser(teacher_z, memory_student, index, negatives, temperature, size)
    student = one_side(student_z, memory_teacher, index, negatives, temperature, size, z_student)
    teacher = one_side(teacher_z, memory_student, index, negatives, temperature, size, z_teacher)
    return student + teacher, z_student, z_teacher


def updated(memory: Tensor, z: Tensor, index: list[int], momentum: float) -> Tensor:
    """A new memory: row index[b] becomes m old + (1 - m) z[b], at unit length; the last of equal indices wins."""
    new = memory.clone()
    for row, n in zip(z.detach(), index, strict=True):
        mixed = [
            momentum * float(old) + (1 - momentum) * float(value) for old, value in zip(memory[n], row, strict=True)
        ]
        length = sum(value * value for value in mixed) ** 0.5
        new[n] = torch.tensor([value / length for value in mixed], dtype=torch.float64)
    return new
