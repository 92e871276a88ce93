"""Methods by name: of this package, of another installed one, or of any module."""

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from sskd.errors import UserError, unknown
from sskd.methods import METHODS
from sskd.methods.plan import Method

GROUP = "sskd.methods"
"""The entry points under which other packages announce methods."""


def find_method(name: str) -> Method:
    """The method of this name: of the registry, of an installed package's entry points, or MODULE:FUNCTION.

    Raises:
        UserError: an unknown name, with the nearest known ones; a module or function that is not there.
    """
    if name in METHODS:
        return METHODS[name]
    module, colon, function = name.partition(":")
    if colon:
        return _checked(name, lambda: getattr(importlib.import_module(module), function))
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return _checked(name, entry.load)
    raise unknown("method", name, [*METHODS, *announced()])


def announced() -> list[str]:
    """Names of the methods that installed packages announce."""
    return sorted({entry.name for entry in entry_points(group=GROUP)} - METHODS.keys())


def _checked(name: str, load: Callable[[], Any]) -> Method:
    try:
        found = load()
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"The method {name} cannot be imported: {error}. Say MODULE:FUNCTION, of a module on Python's path."
        ) from error
    if not callable(found):
        raise UserError(f"The method {name} is no function, but a {type(found).__name__}.")
    method: Method = found
    return method
