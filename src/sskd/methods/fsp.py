"""FSP: Yim, Joo, Bae, Kim, "A Gift from Knowledge Distillation", CVPR 2017: the flow of solution procedure."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.adapters import Maps, check_channels, match
from sskd.methods.parts import LossTerm, initialisation, labels_and_kd, need_teacher, student_stage
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.stages import Scaled, align, need_neighbours, scaled
from sskd.views.pretext import Plain


class FSPLoss(nn.Module):
    """Flow of solution procedure: mean squared difference of flow matrices, summed over neighbouring maps.

    Yim, Joo, Bae, Kim, CVPR 2017, equations 1 and 2, all weights 1. A flow matrix holds the mean over positions of the
    products of two maps' channels; the larger map is averaged to the smaller's size (the paper takes maxima, and sums
    over the matrix instead of averaging). Both networks need equal channels. 0 or more.

    Example:
        >>> maps = [torch.rand(2, 8, 4, 4), torch.rand(2, 16, 2, 2)]
        >>> float(FSPLoss()(maps, maps))
        0.0
    """

    def each(self, student: Maps, teacher: Maps) -> list[Float[Tensor, ""]]:
        """The difference for each pair of neighbours.

        Raises:
            UserError: fewer than two stages, unequal numbers of them, unequal channels, other batches.
        """
        check_channels(student, teacher)
        flows = ([flow(a, b) for a, b in itertools.pairwise(maps)] for maps in (student, teacher))
        return [(s - t).square().mean() for s, t in zip(*flows, strict=True)]

    def forward(self, student: Maps, teacher: Maps) -> Float[Tensor, ""]:
        """Sum over neighbours, of maps [B, C, H, W] from shallow to deep.

        Raises:
            UserError: see `each`.
        """
        return torch.stack(self.each(student, teacher)).sum()


def flow(first: Float[Tensor, "B C H W"], second: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C D"]:
    """Mean over positions of the products of channels."""
    a, b = (maps.flatten(2) for maps in match(first, second))
    return torch.bmm(a, b.transpose(1, 2)) / a.shape[2]


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 1.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    init_epochs: int | Scaled = Scaled(30),
    init_lr: float | None = None,
    stages: tuple[str, ...] | None = None,
) -> Plan:
    """`init_epochs` on the flow alone, at one rate (`init_lr`, else the student's); then labels (and KD) alone.

    The stem and all stages; or two or more `stages`, as "stem", "stage2" or "STUDENT:TEACHER".

    Raises:
        UserError: no teacher; fewer than two maps; stages that cannot be compared, or have other channels.
    """
    need_teacher(pair, "fsp")
    stem = () if stages else align(pair, "fsp", ("stem",))
    aligned = (*stem, *align(pair, "fsp", stages))
    need_neighbours(pair, "fsp", aligned, "products of channels")
    length, notes = scaled("init_epochs", init_epochs, epochs)
    init = initialisation(pair, {"fsp": (weight, LossTerm(FSPLoss(), aligned))}, length, init_lr, optim)
    student = student_stage(labels_and_kd(ce_weight, kd_weight), epochs, optim)
    return Plan((init, student), Plain(), notes=notes)
