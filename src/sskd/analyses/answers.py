"""What networks and heads answer when they are asked about the views of images."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sskd.analyses.features import batches, tapped
from sskd.analyses.finished import Finished, Looked
from sskd.memory import all_sent
from sskd.models.network import Network
from sskd.seeds import generator_at
from sskd.views.pretext import Batch


def viewed(finished: Finished, looked_at: Looked, size: int) -> Iterator[Batch]:
    """The images in batches, with the views that the run's method makes of them: as in the run's own evaluation.

    Pretexts that know training images by number are given these where they can be.
    """
    views, heads = finished.plan.views, finished.heads
    epochs = torch.full((), float(finished.job.training.epochs), device=finished.device)
    for i, (plain, labels) in enumerate(batches(looked_at.images, size, finished.device)):
        generator = generator_at("evaluate", i)
        crops = plain[:, None].expand(-1, views.views, -1, -1, -1)
        images, asked = views.transform(crops, generator)
        nowhere = torch.full((len(labels),), -1)
        index = nowhere if looked_at.index is None else looked_at.index[i * size : (i + 1) * size]
        known = heads is not None and (looked_at.index is not None or not heads.pretext.needs_index)
        drawn = {heads.term.key: heads.term.draw(generator, index)} if heads and known else {}
        yield Batch(images, labels, index, asked, epochs, all_sent(drawn, finished.device))


def outputs(network: Network, batch: Batch, *taps: str) -> dict[str, Float[Tensor, "B V ..."]]:
    """The network's logits and its values at taps, for every view."""
    with tapped(network, *taps) as read:
        values = read(batch.images.flatten(0, 1))
    return {name: torch.unflatten(value, 0, batch.images.shape[:2]) for name, value in values.items()}
