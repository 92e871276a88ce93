"""What networks and heads answer when they are asked about the views of images."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.analyses.features import tapped
from sskd.analyses.finished import Finished
from sskd.models.network import Network
from sskd.views.pretext import Batch, Pretext


def viewed(
    finished: Finished, plain: Float[Tensor, "n C H W"], labels: Int64[Tensor, "n"], generator: torch.Generator
) -> Batch:
    """The views that the run's method makes of images, as in its evaluation: of whole images, without a flip."""
    views = finished.plan.views
    crops = plain[:, None].expand(-1, views.views, -1, -1, -1)
    images, asked = views.transform(crops, generator)
    nowhere = torch.full_like(labels, -1)
    return Batch(images, labels, nowhere, asked, torch.full((), float(finished.job.training.epochs)), {})


def outputs(network: Network, batch: Batch, *taps: str) -> dict[str, Float[Tensor, "B V ..."]]:
    """The network's logits and its values at taps, for every view."""
    with tapped(network, *taps) as read:
        values = read(batch.images.flatten(0, 1))
    return {name: torch.unflatten(value, 0, batch.images.shape[:2]) for name, value in values.items()}


@torch.no_grad()
def answers(pretext: Pretext, head: nn.Module, values: Mapping[str, Tensor]) -> Float[Tensor, "M K"]:
    """A head's logits for the pretext's M questions about a batch."""
    return pretext.answers(head, values["pooled"], {})
