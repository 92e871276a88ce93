"""Singular vectors of the maps, image by image: Lee et al. 2018 (ECCV), SVD, alignment, RBF of neighbouring stages.

One singular vector a map is kept; the student's is chosen among its four leading ones.
"""

import torch
from torch import Tensor

CANDIDATES = 4  # the student's vectors that are compared with the teacher's one
SPREAD = 8.0  # the RBF is exp(-d^2 / SPREAD)


def leading_directions(image: Tensor, count: int) -> list[Tensor]:
    """Unit vectors [C] of the largest singular values of a map [C,H,W], largest first, of unknown sign.

    Eigenvectors of the smaller of the two Gram matrices of the map as an [HW,C] matrix.
    """
    pixels = image.reshape(image.shape[0], -1).T
    tall = pixels.shape[0] >= pixels.shape[1]
    _, vectors = torch.linalg.eigh(pixels.T @ pixels if tall else pixels @ pixels.T)  # ascending
    found = []
    for k in range(min(count, min(pixels.shape))):
        vector = vectors[:, vectors.shape[1] - 1 - k]
        direction = vector if tall else pixels.T @ vector
        found.append(direction / (direction**2).sum() ** 0.5)
    return found


def teacher_direction(image: Tensor) -> Tensor:
    """The leading right singular vector [C] of a map [C,H,W], with the sign that torch.linalg.svd gives it."""
    pixels = image.detach().reshape(image.shape[0], -1).T
    return torch.linalg.svd(pixels, full_matrices=False).Vh[0]


def aligned(candidates: list[Tensor], target: Tensor) -> Tensor:
    """The candidate with the largest absolute cosine to the target, turned to the target's side."""
    cosines = [float((candidate.detach() * target).sum()) for candidate in candidates]
    best = max(range(len(cosines)), key=lambda k: abs(cosines[k]))
    return candidates[best] if cosines[best] > 0 else -candidates[best]


def pair(
    student_front: list[Tensor], student_back: list[Tensor], teacher_front: list[Tensor], teacher_back: list[Tensor]
) -> Tensor:
    """Squared difference of the RBFs of every channel with every channel of the stage before, over B images."""
    total = torch.zeros((), dtype=torch.float64)
    for s_front, s_back, t_front, t_back in zip(student_front, student_back, teacher_front, teacher_back, strict=True):
        for i in range(len(s_back)):
            for j in range(len(s_front)):
                student = torch.exp(-((s_back[i] - s_front[j]) ** 2) / SPREAD)
                teacher = torch.exp(-((t_back[i] - t_front[j]) ** 2) / SPREAD)
                total = total + (student - teacher) ** 2
    return total / len(student_front)


def rbf_pairs(student_maps: list[Tensor], teacher_maps: list[Tensor]) -> list[Tensor]:
    """One loss for each two neighbouring maps [B,C,H,W]; student and teacher agree in C at each stage."""
    teacher = [[teacher_direction(image) for image in stage] for stage in teacher_maps]
    student = [
        [aligned(leading_directions(image, CANDIDATES), target) for image, target in zip(stage, targets, strict=True)]
        for stage, targets in zip(student_maps, teacher, strict=True)
    ]
    return [pair(student[i], student[i + 1], teacher[i], teacher[i + 1]) for i in range(len(student) - 1)]


def rbf(student_maps: list[Tensor], teacher_maps: list[Tensor]) -> Tensor:
    """The sum over neighbouring stages."""
    return torch.stack(rbf_pairs(student_maps, teacher_maps)).sum()
