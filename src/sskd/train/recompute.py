"""Activation checkpointing: blocks that run again in the backward pass, instead of keeping what is inside them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sskd.train.statistics import frozen_statistics


class Recomputed:
    """A network's blocks keep their inputs alone (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016).

    The same gradients, and the same running statistics: in the second pass batch norms remember nothing, dropout draws
    what it drew, and precision is as it was. Costs one more forward pass of the blocks. Ends with `close()`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._blocks = [(block, block.__dict__.get("forward")) for block in blocks(network)]
        for block, _ in self._blocks:
            block.forward = partial(_twice, block, block.forward)  # type: ignore[method-assign]

    def close(self) -> None:
        """Give the blocks their own forward back."""
        for block, own in self._blocks:
            del block.forward  # the class has another
            if own is not None:
                block.forward = own
        self._blocks.clear()


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """What a network is made of in a row: modules of several layers, looked for inside plain sequences of such."""
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList) and any(_composed(part) for part in child):
            yield from blocks(child)
        elif _composed(child):
            yield child


def _composed(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


def _twice(block: nn.Module, forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), frozen_statistics(block)

    return checkpoint(forward, *arguments, use_reentrant=False, context_fn=contexts, **named)
