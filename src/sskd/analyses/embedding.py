"""Features in the plane, by t-SNE."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sskd.seeds import generator_at, mix

CLASSES = 10  # that are shown: colours of more cannot be told apart
FEWEST = 10  # points of which a map is made


def embedding(
    features: Mapping[str, Float[Tensor, "N D"]],
    labels: Int64[Tensor, "N"],
    class_names: Sequence[str],
    points: int,
    seed: int,
) -> dict[str, Any] | None:
    """The same images of at most ten classes, placed by each side's features apart; None for too few images.

    van der Maaten, Hinton 2008, as scikit-learn has it: distances between far groups mean nothing.
    """
    from sklearn.manifold import TSNE  # here, since it takes longer to import than all the rest of a command

    there = torch.unique(labels)
    order = torch.randperm(len(there), generator=generator_at("analyses", "classes", seed))
    chosen = torch.isin(labels, there[order[:CLASSES]]).nonzero().flatten()[:points]
    if len(chosen) < FEWEST or not features:
        return None
    found = []
    for side, values in features.items():
        perplexity = min(30.0, (len(chosen) - 1) / 3)
        place = TSNE(init="pca", perplexity=perplexity, random_state=mix(seed, "tsne") % 2**31)
        plane = place.fit_transform(values[chosen].double().cpu().numpy())
        for (x, y), label in zip(plane.tolist(), labels[chosen].tolist(), strict=True):
            found.append({"x": round(x, 3), "y": round(y, 3), "class": class_names[label], "side": side})
    return {"method": f"t-SNE of the classifier's input, perplexity {perplexity:g}, each side apart", "points": found}
