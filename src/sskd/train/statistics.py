"""How much batch norms remember of what they normalise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms normalise as they would, and remember nothing of it.

    By their momentum: what is overwritten in place could not be differentiated any more.
    """
    norms = _norms(module)
    counts = [(count, count.clone()) for norm in norms if (count := norm.num_batches_tracked) is not None]
    try:
        with _momentum(norms, lambda _: 0.0):
            yield
    finally:
        for count, before in counts:
            count.copy_(before)


@contextmanager
def statistics_of_part(module: nn.Module, share: float) -> Iterator[None]:
    """Batch norms remember a part of a batch so that all of its parts count as much as the whole batch would.

    What they knew before a batch is kept by 1 - momentum: once for a batch, whatever its parts. A momentum of None, an
    average over all that was seen, stays.
    """
    with _momentum(_norms(module), lambda momentum: None if momentum is None else 1 - (1 - momentum) ** share):
        yield


def _norms(module: nn.Module) -> list[_NormBase]:
    return [part for part in module.modules() if isinstance(part, _NormBase) and part.track_running_stats]


@contextmanager
def _momentum(norms: list[_NormBase], changed: Callable[[float | None], float | None]) -> Iterator[None]:
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = changed(norm.momentum)
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
