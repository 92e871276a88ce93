"""Relations between and within classes: Huang et al. 2022 (NeurIPS), one minus Pearson by row and by column."""

import torch
from torch import Tensor

from tests.oracles.ce import log_probability

EPS = 1e-8


def pearson(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Correlation of two lists of scalars, 1e-8 added to the product of the lengths."""
    mean_a, mean_b = sum(a, torch.tensor(0.0).double()) / len(a), sum(b, torch.tensor(0.0).double()) / len(b)
    cross, square_a, square_b = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    for x, y in zip(a, b, strict=True):
        cross = cross + (x - mean_a) * (y - mean_b)
        square_a = square_a + (x - mean_a) ** 2
        square_b = square_b + (y - mean_b) ** 2
    return cross / (square_a**0.5 * square_b**0.5 + EPS)


def relations(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(inter, intra): tau^2 times the mean of 1 - Pearson over the rows, and over the columns, of the softmaxes."""
    students, teachers = (
        [[torch.exp(log_probability(row / temperature, k)) for k in range(len(row))] for row in logits]
        for logits in (student_logits, teacher_logits)
    )
    rows, classes = range(len(students)), range(len(students[0]))
    inter = torch.zeros((), dtype=torch.float64)
    for b in rows:
        inter = inter + 1 - pearson(students[b], teachers[b])
    intra = torch.zeros((), dtype=torch.float64)
    for k in classes:
        intra = intra + 1 - pearson([students[b][k] for b in rows], [teachers[b][k] for b in rows])
    return temperature**2 * inter / len(rows), temperature**2 * intra / len(classes)
