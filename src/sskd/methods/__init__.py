"""The methods, one a file."""

from sskd.methods import ce, kd, sskd
from sskd.methods.plan import Method

METHODS: dict[str, Method] = {"ce": ce.plan, "kd": kd.plan, "sskd": sskd.plan}
