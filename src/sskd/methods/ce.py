"""The student alone: cross-entropy on the labels. Also how teachers are trained."""

from sskd.methods.parts import CrossEntropy
from sskd.methods.plan import Optim, Pair, Plan, Stage
from sskd.views.pretext import Plain


def plan(pair: Pair, *, epochs: int, optim: Optim) -> Plan:
    """One stage, one term. Reads no teacher."""
    return Plan((Stage("train", {"ce": (1.0, CrossEntropy())}, ("student",), epochs, optim),), Plain())
