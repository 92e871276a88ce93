"""What networks compute for a set of images, batch by batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sskd.data.images import Images
from sskd.models.network import Network
from sskd.models.taps import Tapped

Reads = Callable[[Float[Tensor, "n C H W"]], dict[str, Tensor]]
"""`logits` and the values at taps, of images in [0, 1]."""


@contextmanager
def tapped(network: Network, *taps: str) -> Iterator[Reads]:
    """The network with its values at some taps, in at least fp32, without gradients."""
    watched = Tapped(network, network.taps, taps)

    def read(images: Float[Tensor, "n C H W"]) -> dict[str, Tensor]:
        with torch.no_grad():
            return watched(images)  # type: ignore[no-any-return]

    try:
        yield read
    finally:
        watched.close()


def batches(
    images: Images, size: int, device: torch.device
) -> Iterator[tuple[Float[Tensor, "n C H W"], Int64[Tensor, "n"]]]:
    """The images in [0, 1] and their labels, in order; the last batch may be smaller."""
    for pixels, labels in zip(*(torch.split(part, size) for part in (images.pixels, images.labels)), strict=True):
        yield pixels.to(device).float() / 255, labels.to(device)
