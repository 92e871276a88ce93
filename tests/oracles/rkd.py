"""Relational distillation, pair by pair and triple by triple: Park et al. 2019, section 3.2."""

import torch
from torch import Tensor

from tests.oracles.at import unit


def huber(a: Tensor, b: Tensor) -> Tensor:
    """Huber loss (threshold 1) of two numbers."""
    gap = torch.abs(a - b)
    return gap * gap / 2 if gap.item() <= 1 else gap - 0.5


def distances(rows: Tensor) -> list[Tensor]:
    """Of all B^2 ordered pairs, over the mean of the positive ones; 0 from a row to itself, else no less than 1e-6."""
    lengths = []
    for i, a in enumerate(rows.unbind()):
        for j, b in enumerate(rows.unbind()):
            squares = ((a - b) * (a - b)).sum()
            if i == j:
                lengths.append(torch.zeros((), dtype=torch.float64))
            elif squares.item() < 1e-12:
                lengths.append(torch.full((), 1e-6, dtype=torch.float64))
            else:
                lengths.append(torch.sqrt(squares))
    positive = [length for length in lengths if length.item() > 0]
    mean = torch.stack(positive).sum() / len(positive)
    return [length / mean for length in lengths]


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all B^2 pairs, a row with itself included, of the Huber loss of the distances."""
    pairs = [huber(s, t) for s, t in zip(distances(student), distances(teacher), strict=True)]
    return torch.stack(pairs).sum() / len(pairs)


def angles(rows: Tensor) -> list[Tensor]:
    """Cosines of the angle at each row between every two others: B^3 numbers, 0 where two of the three coincide."""
    cosines = []
    for vertex in rows.unbind():
        directions = [unit(other - vertex) for other in rows.unbind()]
        for a in directions:
            cosines += [(a * b).sum() for b in directions]
    return cosines


def angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all B^3 triples of the Huber loss of the cosines."""
    triples = [huber(s, t) for s, t in zip(angles(student), angles(teacher), strict=True)]
    return torch.stack(triples).sum() / len(triples)
