"""SGD and its learning rate, from the stage's description."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from sskd.methods.plan import Optim

WARM_UP = 0.3  # of the stage, for `onecycle`


def build_optimizer(parameters: Iterable[nn.Parameter], optim: Optim) -> torch.optim.SGD:
    """The optimiser of one stage; weight decay on all parameters, as published."""
    parameters = list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.SGD(
        parameters,
        lr=optim.peak,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        nesterov=optim.nesterov,
        fused=fused,
    )


def learning_rate(optim: Optim, progress: float) -> float:
    """The rate at `progress`, the share of the stage's steps that are done (0 <= progress < 1)."""
    if optim.schedule == "step":
        # The tolerance keeps 150/240 of 240 epochs from falling one step late by rounding.
        return optim.peak * optim.gamma ** sum(progress >= milestone - 1e-9 for milestone in optim.milestones)
    if optim.schedule == "onecycle":
        if progress < WARM_UP:
            return optim.peak * (0.04 + 0.96 * progress / WARM_UP)
        progress = (progress - WARM_UP) / (1 - WARM_UP)
    return optim.peak * 0.5 * (1 + math.cos(math.pi * progress))
