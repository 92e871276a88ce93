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
    from sskd.distiller import Distiller

__version__ = "0.1.0"
__all__ = ["Distiller", "Optim", "UserError", "distill", "evaluate", "train_teacher"]

_LAZY = {"Distiller": "sskd.distiller", **dict.fromkeys(("distill", "evaluate", "train_teacher"), "sskd.api")}

register_with_timm()


def __getattr__(name: str) -> Any:
    """What needs torch, loaded when it is first asked for."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sskd' has no attribute {name!r}")
