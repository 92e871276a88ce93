"""The mean of several processes' gradients, without waiting for the device."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sskd.memory import sent
from sskd.train.distributed import World


class Averaging:
    """Puts the mean over the processes in the place of each gradient of a stage; in one message for each dtype.

    What a process did not reach (a network may skip blocks at random) counts as zero there; what no process has reached
    yet (a classifier that the stage's loss does not read) stays without a gradient, as with one process. Which these
    are is read at the first step, and at every `look` as long as there are any: in between, nothing waits for the
    device, and a parameter that is reached for the first time waits for the next look, on all processes alike. Once
    reached, it has a gradient in every step, of zeros where no process reaches it: momentum and weight decay then move
    it where one process would leave it alone.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], world: World) -> None:
        self.parameters, self.world = list(parameters), world
        self._reached: set[int] | None = None  # by some process, as far as was looked
        self._seen: Tensor | None = None  # of each parameter, on the device: whether a process reached it since
        self._missing: list[int] | None = None  # here, in the last step
        self._flags = torch.empty(0)

    def __call__(self) -> None:
        """After each backward pass."""
        if self.world.size == 1 or not self.parameters:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        flags = self._flagged([i for i, p in enumerate(self.parameters) if p.grad is None])
        self.world.average([*gradients, flags])
        self._seen = flags if self._seen is None else torch.maximum(self._seen, flags)
        if self._reached is None:
            self.look()
        for i, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            parameter.grad = gradient if i in (self._reached or ()) else None

    def look(self) -> None:
        """Take up what has been reached meanwhile. Waits for the device, unless all parameters have been."""
        if self._seen is not None and len(self._reached or ()) < len(self.parameters):
            self._reached = {i for i, flag in enumerate(self._seen.tolist()) if flag}

    def _flagged(self, missing: list[int]) -> Tensor:
        """1 for each parameter that was reached here, else 0; a copy. Made anew only where others are missing."""
        if missing != self._missing:
            flags = torch.ones(len(self.parameters), dtype=self.parameters[0].dtype)
            flags[missing] = 0
            self._flags, self._missing = sent(flags, self.parameters[0].device), missing
        return self._flags.clone()
