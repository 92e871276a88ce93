"""sskd: small image classifiers from big ones. After importing it, timm knows its networks.

Importing it alone is quick: torch is loaded by what needs it. `sskd report` does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sskd.errors import UserError
from sskd.optim import Optim
from sskd.registration import register_with_timm

if TYPE_CHECKING:
    from sskd.api import distill, evaluate, train_teacher

__version__ = "0.1.0"
__all__ = ["Optim", "UserError", "distill", "evaluate", "train_teacher"]

register_with_timm()


def __getattr__(name: str) -> Any:
    """The functions of `sskd.api`, loaded when they are first asked for."""
    if name in ("distill", "evaluate", "train_teacher"):
        return getattr(import_module("sskd.api"), name)
    raise AttributeError(f"module 'sskd' has no attribute {name!r}")
