"""Label noise: a stated share of the training labels replaced by wrong ones.

Symmetric: the new label is drawn evenly from all *other* classes, so exactly the stated share of the labels is wrong
(the other convention, which also draws the old label, leaves 1/classes of that share right). Pair-flip: the new label
is the next class in the data's order, the first after the last. Both as in Han et al., "Co-teaching", NeurIPS 2018.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Int64
from torch import Tensor

from sskd.data.subsets import allocate, describe_classes, draw
from sskd.errors import UserError, unknown
from sskd.seeds import generator_at, mix

NoiseKind = Literal["symmetric", "pair-flip"]


def noisy_labels(
    labels: Int64[Tensor, "N"], noise: float, kind: NoiseKind, seed: int, class_names: Sequence[str]
) -> Int64[Tensor, "N"]:
    """The labels, round(noise * N) of them wrong; each class gives its share, rounded up or down.

    Depends on labels and seed alone. A higher noise changes the labels that a lower one changes, in the same way, and
    more.

    Raises:
        UserError: a share outside [0, 1); no such kind; images of fewer than two classes.
    """
    if not 0 <= noise < 1:
        raise UserError(f"The noise is {noise}; expected the share of wrong labels, from 0 to below 1.")
    if kind not in get_args(NoiseKind):
        raise unknown("noise kind", kind, get_args(NoiseKind))
    if noise == 0:
        return labels
    counts = torch.bincount(labels, minlength=len(class_names))
    if int((counts > 0).sum()) < 2:
        there = describe_classes(counts, class_names, counts > 0)
        raise UserError(
            f"Label noise needs images of at least two classes, to take one for the other; all are of {there}. "
            "Leave --noise out, or check the label column."
        )
    changed = draw(labels, allocate(counts, round(noise * len(labels))), mix(seed, "noise"))
    further = torch.ones_like(labels)  # classes onwards; never 0, nor all the way round
    if kind == "symmetric":
        further = torch.randint(1, len(class_names), labels.shape, generator=generator_at(seed, "noise", "labels"))
    noisy = labels.clone()
    noisy[changed] = (labels[changed] + further[changed]) % len(class_names)
    return noisy
