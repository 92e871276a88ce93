"""The options of a method are the keywords of its plan function."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

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
        _check_type(name, option, known[option], value)


def _check_type(method: str, option: str, default: Any, value: Any) -> None:
    kinds: tuple[type, ...] = (int, float)  # a default of None stands for a number that is chosen elsewhere
    expected = "a number"
    if isinstance(default, bool):
        kinds, expected = (bool,), "true or false"
    elif isinstance(default, int):
        kinds, expected = (int,), "a whole number"
    elif isinstance(default, str):
        kinds, expected = (str,), "a name"
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise UserError(f"The option {option} of {method} takes {expected}; got {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"The option {option} of {method} takes a finite number; got {value!r}.")
