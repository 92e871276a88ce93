"""The terms of SSKD, row by row, from the paper: arXiv 2006.07114, equations 1 to 6 and section 3.3.

Values are [B, V, K]: B images, the plain view first.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tests.oracles.ce import cross_entropy
from tests.oracles.kd import divergence


def level(row: Tensor, answer: int) -> int:
    """How many entries beat the right one."""
    values = row.tolist()
    return sum(value > values[answer] for value in values)


def kept(levels: Sequence[int], ratio: float) -> list[int]:
    """The rows that are transferred: every right one; of the wrong ones the share `ratio`, lowest level first."""
    right = [i for i, value in enumerate(levels) if value == 0]
    wrong = [i for i, value in enumerate(levels) if value > 0]
    for value in reversed(range(1, max(levels, default=0) + 1)):  # lowest levels to the front, each in row order
        wrong = [i for i in wrong if levels[i] == value] + [i for i in wrong if levels[i] != value]
    return sorted(right + wrong[: math.floor(len(wrong) * ratio)])


def project(z: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """The head, Linear - ReLU - Linear, of each view of each image."""
    rows = [[w2 @ torch.clamp(w1 @ view + b1, min=0) + b2 for view in image] for image in z]
    return torch.stack([torch.stack(row) for row in rows])


def similarities(z: Tensor) -> tuple[list[Tensor], list[int]]:
    """For each transformed view its cosine with every plain image (equation 1), and its own image."""
    rows, answers = [], []
    for i, image in enumerate(z):
        for view in image[1:]:
            cosines = [(view * other[0]).sum() / (view.norm() * other[0].norm()) for other in z]
            rows.append(torch.stack(cosines))
            answers.append(i)
    return rows, answers


def head_task(z: Tensor) -> Tensor:
    """Equation 2, of the head's outputs."""
    rows, answers = similarities(z)
    return cross_entropy(torch.stack(rows), answers)


def _transfer(
    teacher: Sequence[Tensor], student: Sequence[Tensor], answers: Sequence[int], temperature: float, ratio: float
) -> tuple[Tensor, list[int]]:
    chosen = kept([level(row, answer) for row, answer in zip(teacher, answers, strict=True)], ratio)
    total = sum((s * 0.0).sum() for s in student)  # where no row is kept, a gradient of zero
    for i in chosen:
        total = total + divergence(teacher[i], student[i], temperature)
    return torch.as_tensor(total) / max(len(chosen), 1), chosen


def transformed(
    teacher: Tensor, student: Tensor, labels: Sequence[int], temperature: float, ratio: float
) -> tuple[Tensor, list[int]]:
    """Equation 6, and which rows it kept."""
    t, s = ([view for image in side for view in image[1:]] for side in (teacher, student))
    answers = [label for label in labels for _ in range(teacher.shape[1] - 1)]
    return _transfer(t, s, answers, temperature, ratio)


def similarity(teacher: Tensor, student: Tensor, temperature: float, ratio: float) -> tuple[Tensor, list[int]]:
    """Equation 4 of the heads' outputs, and which rows it kept."""
    rows, answers = similarities(teacher)
    return _transfer(rows, similarities(student)[0], answers, temperature, ratio)
