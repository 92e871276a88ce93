"""The one exception for what a user can put right."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What was expected, what came, and what to do. The command line prints it alone and exits with 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a registry, with the nearest names offered."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else f"Known: {', '.join(names)}."
    return UserError(f"There is no {kind} named {name!r}. {hint}")
