"""Named places inside a network at which a method reads what it computes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Tap:
    """The output of a submodule, or its first input (`at="in"` of an activation: the values before it)."""

    module: str
    at: Literal["out", "in"] = "out"
