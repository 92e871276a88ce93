"""The options of a method are the keywords of its plan function."""

import inspect
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
        if isinstance(known[option], bool):
            if not isinstance(value, bool):
                raise UserError(f"The option {option} of {name} is true or false; got {value!r}.")
            continue
        numeric = known[option] is None or isinstance(known[option], int | float)
        if numeric and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"The option {option} of {name} takes a number; got {value!r}.")
