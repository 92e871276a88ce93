"""SGD and its learning rate, as plain values."""

from dataclasses import dataclass
from typing import Literal

from sskd.errors import UserError
from sskd.ranges import need_between


@dataclass(frozen=True)
class Optim:
    """SGD and its learning rate.

    Args:
        lr: the highest rate; by default what was published: 0.01 for MobileNetV2 and the ShuffleNets, else 0.05.
        momentum: of SGD.
        weight_decay: on all parameters.
        nesterov: Nesterov's momentum.
        schedule: step multiplies the rate by gamma at each milestone; onecycle rises to lr in the first 30 % and falls
            to 0 along half a cosine; cosine falls from the start.
        milestones: shares of the stage, so that a shorter schedule keeps its shape.
        gamma: what the rate is multiplied by at each milestone.

    Raises:
        UserError: a value outside its range.
    """

    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    schedule: Literal["step", "onecycle", "cosine"] = "step"
    milestones: tuple[float, ...] = (150 / 240, 180 / 240, 210 / 240)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "gamma"):
            need_between(f"optim.{name}", getattr(self, name), 0)
        need_between("optim.momentum", self.momentum, 0, 1, "[)")
        if self.nesterov and not self.momentum:
            raise UserError("optim.nesterov needs an optim.momentum above 0.")
        if not all(0 <= milestone <= 1 for milestone in self.milestones):
            raise UserError(f"optim.milestones are shares of the stage, from 0 to 1; got {list(self.milestones)}.")
        if list(self.milestones) != sorted(self.milestones):
            raise UserError(f"optim.milestones must rise; got {list(self.milestones)}.")

    @property
    def peak(self) -> float:
        """The highest rate. Whoever runs a stage has put a number in place of None."""
        if self.lr is None:
            raise ValueError("this stage's learning rate was never set")
        return self.lr
