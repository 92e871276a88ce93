"""sskd: small image classifiers from big ones. Importing it registers its networks with timm."""

from sskd.api import distill, evaluate, train_teacher
from sskd.errors import UserError
from sskd.methods.plan import Optim
from sskd.models import zoo as zoo  # registers the networks

__version__ = "0.1.0"
__all__ = ["Optim", "UserError", "distill", "evaluate", "train_teacher"]
