"""Centred kernel alignment of features, unbiased, accumulated over minibatches.

Nguyen, Raghu, Kornblith, "Do Wide and Deep Networks Learn the Same Things?", ICLR 2021, arXiv 2010.15327, section 2:
HSIC_1 is the unbiased estimator of Song et al. 2012; its mean over minibatches does not depend on their size.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = 4  # images that the estimator needs


def gram(features: Float[Tensor, "n ..."]) -> Float[Tensor, "n n"]:
    """Linear kernel of a minibatch's features, its diagonal left out, in float64.

    The features are centred first. That changes no value of HSIC_1, and keeps digits where means are large.
    """
    flat = features.flatten(1)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    flat = flat - flat.mean(0)
    return (flat @ flat.T).double().fill_diagonal_(0)


def hsic(one: Float[Tensor, "R n n"], other: Float[Tensor, "S n n"]) -> Float[Tensor, "R S"]:
    """HSIC_1 of every pair of kernels whose diagonals are 0 (equation 3 of the paper). It may be negative."""
    n = one.shape[-1]
    trace = torch.einsum("rij,sij->rs", one, other)
    sums = torch.outer(one.sum((1, 2)), other.sum((1, 2))) / ((n - 1) * (n - 2))
    rows = one.sum(2) @ other.sum(2).T * 2 / (n - 2)
    return (trace + sums - rows) / (n * (n - 3))


class MinibatchCKA:
    """CKA of every layer of one network with every layer of another, from minibatches of one size (equation 2)."""

    def __init__(self, rows: Sequence[str], columns: Sequence[str]) -> None:
        self.rows, self.columns = tuple(rows), tuple(columns)
        self._cross: Float[Tensor, "R C"] = torch.zeros(len(rows), len(columns), dtype=torch.float64)
        self._own = torch.zeros(len(rows), dtype=torch.float64), torch.zeros(len(columns), dtype=torch.float64)

    def update(self, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
        """Add a minibatch: the layers' values [n, ...] for the same images, n of at least `SMALLEST`."""
        kernels = [
            torch.stack([gram(side[name]) for name in names])
            for side, names in ((one, self.rows), (other, self.columns))
        ]
        self._cross += hsic(kernels[0], kernels[1]).cpu()
        for own, side in zip(self._own, kernels, strict=True):
            own += torch.cat([hsic(kernel[None], kernel[None])[0] for kernel in side]).cpu()

    def read(self) -> list[list[float | None]]:
        """One row for each layer of the first network. None where a layer's values are alike for all images.

        1 for features that are equal up to rotation and scale, about 0 for unrelated ones, or a little less by chance.
        """
        product = torch.outer(*self._own)
        values = torch.where(product > 0, self._cross / product.clamp(min=0).sqrt(), torch.nan)
        return [[None if value != value else value for value in row] for row in values.tolist()]
