"""What took long to find out about data and is the same until the data changes: kept in the user's cache."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sskd.errors import UserError
from sskd.files import write_atomic

Plain = TypeVar("Plain")
"""What JSON can hold."""


def place() -> Path:
    """Where it is kept: $SSKD_CACHE, or a folder in the user's cache."""
    return Path(os.environ.get("SSKD_CACHE") or Path.home() / ".cache" / "sskd" / "known")


def known(kind: str, key: str, find_out: Callable[[], Plain]) -> Plain:
    """What is known under the key, or else what `find_out` says, which is kept if the cache can be written.

    A file that is damaged counts as none. `key` changes whenever the answer may.
    """
    path = place() / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            found: Plain = kept["answer"]
            return found
    answer = find_out()
    with suppress(OSError, UserError):  # a cache that cannot be written is no reason to stop
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"key": key, "answer": answer}).encode(), str(os.getpid()))
    return answer
