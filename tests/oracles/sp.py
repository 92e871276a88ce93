"""Similarity-preserving distillation, pair by pair of images: Tung and Mori 2019, equations 1 to 4."""

import torch
from torch import Tensor

from tests.oracles.at import unit


def similarity_row(images: list[Tensor], i: int) -> Tensor:
    """Dot products of image i with all images, as a vector of length 1."""
    return unit(torch.stack([(images[i] * other).sum() for other in images]))


def similarity(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared differences of the rows, summed, over B^2."""
    students, teachers = list(student_map.unbind()), list(teacher_map.unbind())
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(students)):
        for s, t in zip(similarity_row(students, i), similarity_row(teachers, i), strict=True):
            total = total + (s - t) * (s - t)
    return total / len(students) ** 2
