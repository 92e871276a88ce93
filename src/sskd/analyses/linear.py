"""Classifiers on frozen features: multinomial logistic regression by L-BFGS, and nearest neighbours."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

STEPS = 500  # of L-BFGS at most
CHUNK = 1024  # queries whose neighbours are looked for at a time


class Linear(NamedTuple):
    """A linear classifier."""

    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, "C"]

    def top1(self, features: Float[Tensor, "N D"], labels: Int64[Tensor, "N"]) -> float:
        """Share of the images that it gets right."""
        predicted = (features @ self.weight.T + self.bias).argmax(1)
        return float((predicted == labels).double().mean())


def fit(
    features: Float[Tensor, "N D"],
    labels: Int64[Tensor, "N"],
    classes: int,
    penalty: float,
    start: Linear | None = None,
) -> Linear:
    """Minimise mean cross-entropy + penalty / 2 x the squared weights (not the bias), over all images at once.

    The problem is convex: where it begins (`start`, or zeros) decides how fast the minimum is found, not which.
    """
    weight, bias = start or (features.new_zeros(classes, features.shape[1]), features.new_zeros(classes))
    parameters = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=STEPS, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = features @ parameters[0].T + parameters[1]
        loss = F.cross_entropy(logits, labels) + penalty / 2 * parameters[0].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Linear(*(parameter.detach() for parameter in parameters))


def neighbours(
    stored: Float[Tensor, "N D"], labels: Int64[Tensor, "N"], queries: Float[Tensor, "M D"], most: int
) -> Int64[Tensor, "M most"]:
    """The labels of each query's nearest stored images by cosine, the nearest first."""
    unit = F.normalize(stored, dim=1).T
    found = [(F.normalize(part, dim=1) @ unit).topk(most).indices for part in torch.split(queries, CHUNK)]
    return labels[torch.cat(found)]


def voted(near: Int64[Tensor, "M most"], k: int, classes: int) -> Int64[Tensor, "M"]:
    """The class of most of the k nearest; among equals that of which one is nearest."""
    near = near[:, :k]
    votes = torch.zeros(len(near), classes, dtype=torch.int64, device=near.device)
    votes.scatter_add_(1, near, torch.ones_like(near))
    return near.gather(1, votes.gather(1, near).argmax(1, keepdim=True))[:, 0]  # argmax: the first of equals


def best_of(scores: Sequence[float]) -> int:
    """The position of the highest score, the first of equals."""
    return max(range(len(scores)), key=scores.__getitem__)
