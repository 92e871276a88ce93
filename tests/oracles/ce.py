"""Cross-entropy, row by row."""

import torch
from torch import Tensor


def log_probability(row: Tensor, answer: int) -> Tensor:
    """Log of one entry's softmax."""
    top = row.detach().max()
    return row[answer] - top - torch.log(torch.stack([torch.exp(x - top) for x in row]).sum())


def cross_entropy(logits: Tensor, answers: list[int]) -> Tensor:
    """-log p(answer), averaged over the rows [M, K]."""
    losses = [-log_probability(row, answer) for row, answer in zip(logits, answers, strict=True)]
    return torch.stack(losses).sum() / len(losses)
