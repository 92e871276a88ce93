"""Batch norms with the statistics of all processes' images: `torch.nn.SyncBatchNorm` for any device and dtype."""

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sskd.train.distributed import World


class SynchronisedBatchNorm(_BatchNorm):
    """Normalises by mean and variance over the whole batch, as one process with all of it would.

    torch's own runs on accelerators alone, so that nothing about it could be tested without one.
    """

    world: World

    def _check_input_dim(self, input: Tensor) -> None:
        """Whatever the replaced module took."""

    def forward(self, input: Float[Tensor, "b C ..."]) -> Float[Tensor, "b C ..."]:
        """One message forwards and one backwards, of 2 C numbers for each process."""
        if not self.training or self.world.size == 1:
            normalised: Tensor = super().forward(input)
            return normalised
        values = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        axes = [axis for axis in range(values.ndim) if axis != 1]
        variance, mean = torch.var_mean(values, axes, correction=0)
        means, variances = self.world.together(torch.stack([mean, variance])[None]).unbind(1)  # size x C
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        self._remember(mean.detach(), variance.detach(), values.numel() // values.shape[1] * self.world.size)
        shape = [-1 if axis == 1 else 1 for axis in range(values.ndim)]
        scale = (variance + self.eps).rsqrt() * (1 if self.weight is None else self.weight)
        shift = (0 if self.bias is None else self.bias) - mean * scale
        return (values * scale.view(shape) + shift.view(shape)).to(input.dtype)

    def _remember(self, mean: Float[Tensor, "C"], variance: Float[Tensor, "C"], count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.copy_((1 - share) * self.running_mean + share * mean)
        self.running_var.copy_((1 - share) * self.running_var + share * variance * (count / max(count - 1, 1)))


def arrange_norms(modules: Collection[nn.Module], world: World, batch_size: int) -> str:
    """Synchronise the batch norms of what is trained, if that is wanted; returns what to tell the user, if anything."""
    if world.batch_norm == "synchronised":
        left = sum(synchronise(module, world) for module in modules)
        return f"{left} batch norms do more than normalise and keep the statistics of each process." if left else ""
    if not any(isinstance(part, _BatchNorm) for module in modules for part in module.modules()):
        return ""
    return (
        f"Batch norms see the {batch_size // world.size} images of their own process, not the {batch_size} of the "
        "whole batch: this is another training than one process's, and with few images accuracy can suffer. "
        "--batch_norm synchronised takes the statistics of all, and trains as one process does."
    )


def synchronise(module: nn.Module, world: World) -> int:
    """Put synchronised batch norms in the place of a module's own; they share parameters, buffers and names.

    Returns how many were left as they are: a subclass (timm's with a built-in activation) does more than normalise.
    """
    left = 0
    for name, child in module.named_children():
        if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d):
            setattr(module, name, _replaced(child, world))
        elif isinstance(child, _BatchNorm):
            left += 1
        else:
            left += synchronise(child, world)
    return left


def _replaced(norm: nn.Module, world: World) -> SynchronisedBatchNorm:
    made = SynchronisedBatchNorm.__new__(SynchronisedBatchNorm)
    made.__dict__ = dict(norm.__dict__)
    made.world = world
    return made
