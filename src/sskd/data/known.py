"""What took long to find out about data and is the same until the data changes: kept in the user's cache."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from sskd.errors import UserError
from sskd.files import LOCK, write_atomic

Plain = TypeVar("Plain")
"""What JSON can hold."""

PATIENCE = 600.0  # seconds to wait for another process that finds out the same: it may have been suspended


def place() -> Path:
    """Where it is kept: $SSKD_CACHE, or a folder in the user's cache."""
    return Path(os.environ.get("SSKD_CACHE") or Path.home() / ".cache" / "sskd" / "known")


def known(kind: str, key: str, find_out: Callable[[], Plain]) -> Plain:
    """What is known under the key, or else what `find_out` says, which is kept if the cache can be written.

    A file that is damaged counts as none. `key` changes whenever the answer may. Of several processes that ask at the
    same time one finds out, and the others wait for it.
    """
    path = place() / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if (kept := _kept(path, key)) is None:
        with _alone(path):
            if (kept := _kept(path, key)) is None:
                kept = (find_out(),)
                _keep(path, key, kept[0])
    answer: Plain = kept[0]
    return answer


def _kept(path: Path, key: str) -> tuple[Any] | None:
    """The answer that the file holds for this key, if it is whole."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        digest, _, body = path.read_bytes().partition(b"\n")
        if digest == _digest(body) and (held := json.loads(body))["key"] == key:
            return (held["answer"],)
    return None


def _keep(path: Path, key: str, answer: Any) -> None:
    body = json.dumps({"key": key, "answer": answer}, separators=(",", ":")).encode()
    with suppress(OSError, UserError):  # a cache that cannot be written is no reason to stop
        write_atomic(path, _digest(body) + b"\n" + body, str(os.getpid()))


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes waiting; not where nothing can be locked."""
    lock = FileLock(path.with_name(f".{path.name}{LOCK}"))
    with suppress(OSError, NotImplementedError, Timeout):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=PATIENCE)
    try:
        yield
    finally:
        lock.release()
