"""Methods by name: of this package, of another installed one, or of any module."""

from importlib.metadata import entry_points
from typing import Any

from sskd.errors import UserError, unknown
from sskd.importing import import_attribute
from sskd.methods import METHODS
from sskd.methods.options import check_signature
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
    if ":" in name:
        form = "Say MODULE:FUNCTION, of a module in the working folder or on Python's path."
        return _checked(name, import_attribute(name, f"method {name}", form))
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            what, form = f"method {name} (announced as {entry.value})", "Mend or remove the package that announces it."
            return _checked(name, import_attribute(f"{entry.module}:{entry.attr}", what, form))
    raise unknown("method", name, [*METHODS, *announced()])


def announced() -> list[str]:
    """Names of the methods that installed packages announce."""
    return sorted({entry.name for entry in entry_points(group=GROUP)} - METHODS.keys())


def _checked(name: str, found: Any) -> Method:
    if not callable(found):
        raise UserError(f"The method {name} is no function, but a {type(found).__name__}.")
    check_signature(found, name)
    method: Method = found
    return method
