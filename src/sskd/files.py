"""Files that are written whole or not at all, and read without running code."""

import errno
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sskd.errors import UserError
from sskd.escaping import visible
from sskd.validation import convert

LOCK = ".lock"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what stood in the way of writing `path`.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or error
        raise UserError(
            f"{path} could not be written: {reason}. What was saved before is kept; "
            "make room or choose another --out, then run the same command again."
        ) from error


def write_atomic(path: Path, content: bytes, writer: str = "", previous: Path | None = None) -> None:
    """Write a file under a temporary name, flush it to the disk, then rename it.

    `writer` tells apart those who may write the same file at the same time. Whoever was killed and comes back as the
    same writer replaces what it left behind. `previous`: a name under which what stood at `path` is kept.

    Raises:
        UserError: the disk is full or cannot be written; what stood at `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}{writer and '.'}{writer}.tmp")
    with explained(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if previous is not None and path.exists():
                path.replace(previous)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise


def is_temporary(path: Path) -> bool:
    """Whether this is what `write_atomic` or `alone_in` leaves behind when the process is killed in it."""
    return path.name.startswith(".") and path.name.endswith((".tmp", LOCK))


NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)


def locks_missing(path: Path) -> str:
    """Why the file system cannot lock this file; empty where it can, whether or not another process holds the lock."""
    try:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return str(error.strerror) if error.errno in NO_LOCKS else ""
    return ""


def say(text: str) -> None:
    """Print a line for people to stderr; control characters, as names of files may hold them, are made visible."""
    print(f"sskd: {visible(text)}", file=sys.stderr)


@contextmanager
def alone_in(folder: Path, note: Callable[[str], None] = say) -> Iterator[None]:
    """Hold a folder's lock; it is released even when the process is killed.

    Where the file system locks no files, `note` is told so, and nothing is held.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    make_folder(folder)
    if missing := locks_missing(folder / LOCK):
        note(
            f"The file system of {folder} cannot lock files ({missing}): see to it that no other process trains there."
        )
        yield
        return
    lock = FileLock(folder / LOCK, timeout=0.2)  # not at once: `held` has it for a moment
    with explained(folder):
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"Another process is training in {folder}. Wait for it, stop it, or choose another --out."
            ) from error
    try:
        yield
    finally:
        lock.release()


def held(folder: Path) -> bool:
    """Whether a process is in `alone_in` this folder, as far as this machine sees; nothing is written."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def append_line(path: Path, line: str) -> None:
    """Add a line to a file and flush it to the disk.

    Raises:
        UserError: the disk is full or cannot be written; a part of the line may be there.
    """
    with explained(path), path.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"The folder {path} cannot be made: {reason}. Choose another --out.") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs, atomically."""
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def read_bytes(path: Path, advice: str) -> bytes:
    """A file's content.

    Raises:
        UserError: it is no file, or may not be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). {advice}") from error


def read_json(path: Path, advice: str = "Restore it, or start anew with another --out.") -> dict[str, Any]:
    """Read a JSON object. `advice` ends the message of what can go wrong.

    Raises:
        UserError: the file cannot be read, is damaged, or holds something other than an object.
    """
    try:
        value = json.loads(read_bytes(path, advice))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). {advice}") from error
    return convert(value, dict[str, Any], str(path), advice)


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return values
