"""The one exception for what a user can put right."""

import difflib
from collections.abc import Iterable

LISTED = 40  # known names that a message lists


class UserError(Exception):
    """What was expected, what came, and what to do. The command line prints it alone and exits with 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a registry, with the nearest names offered."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    more = f", ... ({len(names):,} in all)" if len(names) > LISTED else ""
    known_names = f"Known: {', '.join(names[:LISTED])}{more}."
    hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else known_names
    return UserError(f"There is no {kind} named {name!r}. {hint}")
