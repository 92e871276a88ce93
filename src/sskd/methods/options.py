"""The options of a method are the keywords of its plan function."""

import inspect
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sskd.errors import UserError, unknown
from sskd.methods.plan import Method

_GIVEN = ("pair", "epochs", "optim")


def options_of(method: Method) -> dict[str, Any]:
    """Name and default of each option."""
    parameters = inspect.signature(method).parameters
    return {name: p.default for name, p in parameters.items() if name not in _GIVEN}


def check_options(method: Method, name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the method does not have, or that are of another kind.

    Raises:
        UserError: names the option, what it takes, and the nearest known names.
    """
    known = options_of(method)
    for option, value in options.items():
        if option not in known:
            if not known:
                raise UserError(f"The method {name} has no options; got {option!r}.")
            raise unknown(f"option of {name}", option, known)
        hint = get_type_hints(method)[option]
        if not _fits(value, hint):
            raise UserError(f"The option {option} of {name} takes {_said(hint)}; got {value!r}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"The option {option} of {name} takes a finite number; got {value!r}.")


_SAID = {bool: "true or false", int: "a whole number", float: "a number", str: "a name", type(None): "null"}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from a command line or a YAML file is what the annotation says; lists stand for tuples."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in parts
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is tuple:
        return isinstance(value, list | tuple) and all(_fits(one, parts[0]) for one in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _said(hint: Any) -> str:
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if kind in (Union, UnionType):
        return " or ".join(_said(part) for part in parts)
    return f"a list, each {_said(parts[0])}" if kind is tuple else _SAID.get(hint, str(hint))
