"""Functions and classes that users name as MODULE:NAME."""

import traceback
from importlib import import_module
from typing import Any

from sskd.errors import UserError


def import_attribute(name: str, what: str, advice: str) -> Any:
    """Import what MODULE:NAME names; NAME may be dotted (CLASS.METHOD).

    Args:
        name: the name, as the user wrote it.
        what: what it stands for, to begin a message: "method toy:plan".
        advice: a last sentence that says what to do.

    Raises:
        UserError: no such module or name, or the module raises an error (the message says where).
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # a user's module may do anything when it is imported
        raise UserError(f"The {what} cannot be imported: {_explained(error)}. {advice}") from error
    return found


def _explained(error: BaseException) -> str:
    """What went wrong and, where code of a module raised it, at which of its lines."""
    said = " ".join(str(error).split())
    if not isinstance(error, ImportError | AttributeError):
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    frame = traceback.extract_tb(error.__traceback__)[-1]
    own = frame.filename != __file__ and "importlib" not in frame.filename
    return f"{said} ({frame.filename}, line {frame.lineno})" if own else said
