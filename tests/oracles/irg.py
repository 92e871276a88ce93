"""Instance relationship graph, image by image: Liu et al. 2019 (CVPR), vertex, edge and transformation losses."""

import torch
from torch import Tensor


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """||a - b||^2 of two arrays of one shape."""
    return ((a.reshape(-1) - b.reshape(-1)) ** 2).sum()


def vertex(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Squared difference of the logits, averaged over images and classes [B,K]."""
    total = torch.zeros((), dtype=torch.float64)
    for student, teacher in zip(student_logits, teacher_logits, strict=True):
        for k in range(len(student)):
            total = total + (student[k] - teacher[k]) ** 2
    return total / student_logits.numel()


def edges(features: Tensor) -> list[list[Tensor]]:
    """Squared distances between the images of [B,...], divided by the largest of them."""
    rows = [[squared_distance(a, b) for b in features] for a in features]
    largest = max((entry for row in rows for entry in row), key=lambda entry: float(entry.detach()))
    return [[entry / largest for entry in row] for row in rows]


def edge(student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
    """Mean squared difference of the B x B edges, averaged over the features (the embedding and both maps)."""
    total = torch.zeros((), dtype=torch.float64)
    for student, teacher in zip(student_features, teacher_features, strict=True):
        one = torch.zeros((), dtype=torch.float64)
        for student_row, teacher_row in zip(edges(student), edges(teacher), strict=True):
            for s, t in zip(student_row, teacher_row, strict=True):
                one = one + (s - t) ** 2
        total = total + one / len(student) ** 2
    return total / len(student_features)


def pooled(image: Tensor, height: int, width: int) -> Tensor:
    """Means of equal blocks of a map [C,H,W]."""
    down, across = image.shape[1] // height, image.shape[2] // width
    rows = []
    for i in range(height):
        blocks = [image[:, i * down : (i + 1) * down, j * across : (j + 1) * across] for j in range(width)]
        rows.append(torch.stack([block.sum(dim=(1, 2)) / (down * across) for block in blocks], dim=1))
    return torch.stack(rows, dim=1)


def shifts(first: Tensor, second: Tensor) -> list[Tensor]:
    """Squared distance of each image's two maps, divided by the largest.

    The first is pooled to the second's size; where the second has more channels, neighbours 2c and 2c + 1 are averaged.
    """
    found = []
    for before, after in zip(first, second, strict=True):
        small = pooled(before, after.shape[1], after.shape[2])
        if len(after) > len(small):
            after = torch.stack([(after[2 * c] + after[2 * c + 1]) / 2 for c in range(len(small))])
        found.append(squared_distance(small, after))
    largest = max(found, key=lambda entry: float(entry.detach()))
    return [entry / largest for entry in found]


def transformation(
    student_first: Tensor, student_second: Tensor, teacher_first: Tensor, teacher_second: Tensor
) -> Tensor:
    """Mean squared difference of the shifts between two maps [B,C,H,W]."""
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(shifts(student_first, student_second), shifts(teacher_first, teacher_second), strict=True):
        total = total + (s - t) ** 2
    return total / len(student_first)
