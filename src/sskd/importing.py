"""Functions and classes that users name as MODULE:NAME: the one place that imports and calls code of theirs."""

import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sskd.errors import UserError
from sskd.stopping import Terminated


def import_attribute(name: str, what: str, advice: str) -> Any:
    """Import what MODULE:NAME names, from the working folder or Python's path; NAME may be dotted (CLASS.METHOD).

    Args:
        name: the name, as the user wrote it.
        what: what it stands for, to begin a message: "method toy:plan".
        advice: a last sentence that says what to do.

    Raises:
        UserError: no such module or name, or the module raises an error (the message says where).
    """
    module, _, attribute = name.partition(":")
    with user_code(f"The {what} cannot be imported", advice):
        here = str(Path.cwd())
        if here not in sys.path:  # as `python -m` has it; an installed command has not
            sys.path.insert(0, here)
        found: Any = import_module(module)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
    return found


@contextmanager
def user_code(failing: str, advice: str) -> Iterator[None]:
    """Within it a user's code is run: whatever it raises is reported with its file and line.

    Raises:
        UserError: begins with `failing` and ends with `advice`.
    """
    try:
        yield
    except (Terminated, UserError):
        raise
    except (Exception, SystemExit) as error:  # a user's module may do anything, sys.exit() too
        raise UserError(f"{failing}: {_explained(error)}. {advice}") from error


def _explained(error: BaseException) -> str:
    """What went wrong and, where code of a module raised it, at which of its lines."""
    said = " ".join(str(error).split())
    if not isinstance(error, ImportError | AttributeError):
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _of_python(frame.filename)]
    own = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)] or frames
    return f"{said} ({own[-1].filename}, line {own[-1].lineno})" if own else said


_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_OURS = str(Path(__file__).parent)


def _of_python(file: str) -> bool:
    """Whether a frame is of this package, or of Python's import system."""
    return file.startswith(_OURS) or "importlib" in file
