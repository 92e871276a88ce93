"""Sums that stay on the device and are read once per interval."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sskd.errors import UserError
from sskd.train.checkpoint import MeterState, PartState


class Meter:
    """Weighted means of named scalars, and the first step at which one was not finite.

    Nothing waits for the device until `read` is called.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._first_bad: Tensor | None = None
        self._weight = 0

    def update(self, values: dict[str, Tensor], step: int, weight: int = 1) -> None:
        """Add the values of one step, each of which stands for `weight` images."""
        if not values:  # a stage that measures nothing at evaluation
            return
        row = torch.stack([value.detach() for value in values.values()]).double()
        if self._sums is None or self._first_bad is None:
            self._names = list(values)
            self._sums = torch.zeros_like(row)
            self._first_bad = torch.full(row.shape, -1, dtype=torch.int64, device=row.device)
        self._sums += row * weight
        bad = ~row.isfinite() & (self._first_bad < 0)
        self._first_bad.masked_fill_(bad, step)
        self._weight += weight

    def state(self) -> MeterState:
        """For a checkpoint."""
        return {"names": self._names, "sums": self._sums, "first_bad": self._first_bad, "weight": self._weight}

    @classmethod
    def restored(cls, state: MeterState, device: torch.device) -> "Meter":
        """From a checkpoint."""
        meter = cls()
        meter._names, meter._weight = state["names"], state["weight"]
        sums, first_bad = state["sums"], state["first_bad"]
        if sums is not None and first_bad is not None:
            meter._sums, meter._first_bad = sums.to(device), first_bad.to(device)
        return meter

    @classmethod
    def merged(cls, states: Sequence[MeterState], device: torch.device) -> "Meter":
        """One meter of the states of several processes' meters; a process may have seen nothing."""
        seen = [state for state in states if state["sums"] is not None]
        if not seen:
            return cls()
        sums = torch.stack([values.cpu() for state in seen if (values := state["sums"]) is not None]).sum(0)
        bad = torch.stack([values.cpu() for state in seen if (values := state["first_bad"]) is not None])
        first = torch.where(bad < 0, torch.iinfo(bad.dtype).max, bad).amin(0)
        state: MeterState = {
            "names": seen[0]["names"],
            "sums": sums,
            "first_bad": torch.where((bad < 0).all(0), -1, first),
            "weight": sum(state["weight"] for state in seen),
        }
        return cls.restored(state, device)

    def read(self) -> dict[str, float]:
        """The means so far; waits for the device. Empty before the first update."""
        if self._sums is None:
            return {}
        return dict(zip(self._names, (self._sums / self._weight).tolist(), strict=True))

    def check(self, stage: str) -> None:
        """Stop at a value that is not finite.

        Raises:
            UserError: names the term and the step at which it was first not finite.
        """
        if self._first_bad is None:
            return
        first = {name: step for name, step in zip(self._names, self._first_bad.tolist(), strict=True) if step >= 0}
        if not first:
            return
        step = min(first.values())
        names = [name for name, at in first.items() if at == step and name != "total"] or ["total"]
        raise UserError(
            f"Loss term {', '.join(names)} became NaN or infinite in stage {stage!r} at step {step}. The run stopped; "
            "its last good checkpoint is kept. Lower --optim.lr or a term's weight and start again with another --out."
        )


@dataclass
class Part:
    """What is done of an epoch."""

    steps: int = 0
    seconds: float = 0.0
    meter: Meter = field(default_factory=Meter)

    def state(self) -> PartState:
        """For a checkpoint."""
        return {"steps": self.steps, "seconds": self.seconds, "meter": self.meter.state()}

    @classmethod
    def restored(cls, state: PartState, device: torch.device) -> "Part":
        """From a checkpoint."""
        return cls(state["steps"], state["seconds"], Meter.restored(state["meter"], device))
