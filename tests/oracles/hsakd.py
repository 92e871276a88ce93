"""Hierarchical self-supervised augmented distillation, row by row: Yang et al. 2021 (IJCAI), task and mimicry."""

import torch
from torch import Tensor

from tests.oracles.ce import log_probability
from tests.oracles.kd import divergence

VIEWS = 4


def joint_labels(labels: list[int], rotations: list[int]) -> list[int]:
    """4 label + rotation, the class of one (image, quarter turns) pair."""
    return [label * VIEWS + rotation for label, rotation in zip(labels, rotations, strict=True)]


def task(logits: Tensor, labels: list[int]) -> Tensor:
    """-log p(joint label), averaged over the images and their four views [B,4,4C]; view j is turned j times."""
    total = torch.zeros((), dtype=torch.float64)
    for views, label in zip(logits, labels, strict=True):
        for j in range(VIEWS):
            total = total - log_probability(views[j], joint_labels([label], [j])[0])
    return total / (len(labels) * VIEWS)


def mimicry(student_branches: list[Tensor], teacher_branches: list[Tensor], temperature: float = 3.0) -> Tensor:
    """T^2 KL from teacher to student, averaged over all rows ([B,4,K] or [4B,K]), summed over the branches."""
    total = torch.zeros((), dtype=torch.float64)
    for student, teacher in zip(student_branches, teacher_branches, strict=True):
        s_rows, t_rows = student.reshape(-1, student.shape[-1]), teacher.reshape(-1, teacher.shape[-1])
        for s, t in zip(s_rows, t_rows, strict=True):
            total = total + divergence(t, s, temperature) / len(s_rows)
    return total


def _block(channels: int, planes: int, stride: int) -> int:
    """Parameters of a basic block: two 3x3 convolutions and their norms, and a 1x1 shortcut where the shape changes."""
    count = 9 * channels * planes + 2 * planes + 9 * planes * planes + 2 * planes
    return count + (channels * planes + 2 * planes if stride != 1 or channels != planes else 0)


def branch_parameters(widths: tuple[int, ...], blocks: int, classes: int) -> list[int]:
    """Parameters of the branch off each stage of a residual network of basic blocks, whose stages have these widths.

    A branch holds the stages that follow, the first block of each at stride 2; the last stage's, that stage again at
    stride 1. Then an average and a linear layer to the joint labels.
    """
    found = []
    for k, width in enumerate(widths):
        count, channels = 0, width
        for planes, stride in [(later, 2) for later in widths[k + 1 :]] or [(width, 1)]:
            for i in range(blocks):
                count += _block(channels if i == 0 else planes, planes, stride if i == 0 else 1)
            channels = planes
        found.append(count + channels * VIEWS * classes + VIEWS * classes)
    return found
