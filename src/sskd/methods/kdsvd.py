"""KDSVD: Lee, Kim, Song, "Self-supervised Knowledge Distillation Using Singular Value Decomposition", ECCV 2018."""

import itertools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.adapters import Maps, check_channels
from sskd.methods.parts import LossTerm, labels_and_kd, need_teacher, student_plan
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import align, need_neighbours

_CANDIDATES = 4  # of the student's directions, one of which is taken
_SPREAD = 8.0


class KDSVDLoss(nn.Module):
    """How a map's main direction among its channels follows from that of the map before.

    Lee, Kim, Song, ECCV 2018, section 3, k = 1. Both networks need equal channels. 0 or more.

    Each image's map, as positions x channels, has a leading right singular vector. Of the student's first four the one
    nearest to the teacher's is taken, with its sign. exp(-(difference)^2 / 8) of each channel of a map with each of
    the map before is compared with the teacher's: squared difference, summed, batch mean, summed over neighbours.
    The paper's alternating of the two losses' gradients is left out, as in all tables of the field. On a GPU the
    decompositions wait for the device: the one loss that does.

    Example:
        >>> maps = [torch.rand(2, 8, 4, 4), torch.rand(2, 16, 4, 4)]
        >>> float(KDSVDLoss()(maps, maps)) < 1e-6
        True
    """

    def each(self, student: Maps, teacher: Maps) -> list[Float[Tensor, ""]]:
        """The difference for each pair of neighbours.

        Raises:
            UserError: fewer than two stages, unequal numbers of them, unequal channels, other batches.
        """
        check_channels(student, teacher)
        directions = []
        for s, t in zip(student, teacher, strict=True):
            theirs = leading(t)
            directions.append((nearest(candidates(s), theirs), theirs))
        following = itertools.pairwise(directions)
        return [
            (_relation(s, s_next) - _relation(t, t_next)).square().sum((1, 2)).mean()
            for (s, t), (s_next, t_next) in following
        ]

    def forward(self, student: Maps, teacher: Maps) -> Float[Tensor, ""]:
        """Sum over neighbours, of maps [B, C, H, W] from shallow to deep.

        Raises:
            UserError: see `each`.
        """
        return torch.stack(self.each(student, teacher)).sum()


def leading(maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C"]:
    """The leading right singular vector of each image's positions x channels, with the sign that LAPACK gives it."""
    right: Tensor = torch.linalg.svd(maps.flatten(2).transpose(1, 2), full_matrices=False).Vh[:, 0]
    return right


def candidates(maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B n C"]:
    """The first four right singular vectors, by the smaller of the two Gram matrices; signs are arbitrary."""
    rows = maps.flatten(2).transpose(1, 2)
    tall = rows.shape[1] >= rows.shape[2]
    gram = rows.transpose(1, 2) @ rows if tall else rows @ rows.transpose(1, 2)
    vectors: Tensor = Eigenvectors.apply(gram)
    found = vectors[..., -_CANDIDATES:].transpose(1, 2)
    if tall:
        return found
    return torch.nn.functional.normalize(found @ rows, dim=2)


class Eigenvectors(torch.autograd.Function):
    """Eigenvectors of symmetric matrices in columns, ascending, with a gradient that stays finite.

    The gradient holds 1 / (difference of eigenvalues), which is infinite where two are equal, as those of maps with
    dead channels are. Here it is d / (d^2 + eps l^2), l the largest eigenvalue and eps the precision of the numbers:
    the same to rounding where eigenvalues differ by more than rounding, and 0 where they do not.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Float[Tensor, "B n n"]) -> Float[Tensor, "B n n"]:
        """Decompose."""
        values, vectors = torch.linalg.eigh(matrices)
        ctx.save_for_backward(values, vectors)
        made: Tensor = vectors
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Float[Tensor, "B n n"]) -> Float[Tensor, "B n n"]:
        """V (F * V^T dV) V^T, F_ij = 1 / (l_j - l_i)."""
        values, vectors = ctx.saved_tensors
        gap = values[:, None, :] - values[:, :, None]
        floor = torch.finfo(values.dtype).eps * values[:, -1, None, None].square()
        inverse = gap / (gap.square() + floor).clamp(min=torch.finfo(values.dtype).tiny)
        inner = inverse * (vectors.transpose(1, 2) @ grads[0])
        grad: Tensor = vectors @ inner @ vectors.transpose(1, 2)
        return (grad + grad.transpose(1, 2)) / 2


def nearest(found: Float[Tensor, "B n C"], target: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    """Of each image's candidates the one with the largest absolute cosine to the target, turned to its side."""
    cosine = (found.detach() @ target[:, :, None])[..., 0]
    best = cosine.abs().argmax(1, keepdim=True)
    chosen = found.gather(1, best[..., None].expand(-1, -1, found.shape[2]))[:, 0]
    return torch.where(cosine.gather(1, best) > 0, chosen, -chosen)


def _relation(front: Float[Tensor, "B C"], back: Float[Tensor, "B D"]) -> Float[Tensor, "B D C"]:
    return (-(back[:, :, None] - front[:, None, :]).square() / _SPREAD).exp()


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 1.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    stages: tuple[str, ...] | None = None,
) -> Plan:
    """`stages` as "stage2" or "STUDENT:TEACHER"; all, where both networks have as many.

    Raises:
        UserError: no teacher; fewer than two stages; stages of unequal channels.
    """
    need_teacher(pair, "kdsvd")
    aligned = align(pair, "kdsvd", stages)
    need_neighbours(pair, "kdsvd", aligned, "directions among channels")
    term = LossTerm(KDSVDLoss(), aligned)
    return student_plan(labels_and_kd(ce_weight, kd_weight) | {"kdsvd": (weight, term)}, epochs, optim)
