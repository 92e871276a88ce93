"""Files that are written whole or not at all, and read without running code."""

import errno
import fcntl
import io
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sskd.errors import UserError

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


def write_atomic(path: Path, content: bytes, writer: str = "") -> None:
    """Write a file under a temporary name, flush it to the disk, then rename it.

    `writer` tells apart those who may write the same file at the same time. Whoever was killed and comes back as the
    same writer replaces what it left behind.

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
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise


def is_temporary(path: Path) -> bool:
    """Whether this is what `write_atomic` or `alone_in` leaves behind when the process is killed in it."""
    return path.name.startswith(".") and path.name.endswith((".tmp", LOCK))


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; it is released even when the process is killed.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    make_folder(folder)
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


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values."""
    import torch  # not above: those who only read results do without it

    buffer = io.BytesIO()
    try:
        torch.save(state, buffer)
    except RuntimeError as error:
        if "unexpected pos" not in str(error):
            raise
        # What torch's writer says when a write fails, and a buffer's fails for want of memory alone.
        raise MemoryError("a checkpoint could not be put together") from error
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path, needed: Collection[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. The keys `needed` tell it from other files.

    Raises:
        UserError: the file is damaged, or is no such checkpoint.
    """
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if missing := [name for name in needed if name not in state]:
            raise ValueError(f"it holds no {', '.join(missing)}")
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"The checkpoint {path} cannot be read ({reason}). Delete it to start the run anew.") from error
    return state


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


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is damaged.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise ValueError("it holds no object")
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Restore it, or start anew with another --out.") from error
    return value


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return values
