"""SIGTERM, with which schedulers end a job: a training saves a checkpoint first, all else ends at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """The process was asked to end by SIGTERM."""

    def __init__(self) -> None:
        super().__init__(STATUS)


class _Request:
    """Whether somebody asked, and in which process handlers were set: worker processes inherit both."""

    asked = False
    saving = False
    owner = 0


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _Request.owner:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    elif _Request.saving and not _Request.asked:
        _Request.asked = True
    else:  # there is nothing to save, or it is asked for the second time
        raise Terminated


@contextmanager
def handling_sigterm() -> Iterator[None]:
    """Within it SIGTERM raises `Terminated`, where Python's default would end the process without a word.

    Does nothing in threads, under torchrun (which ends processes that wait for a lost one by SIGTERM, and they could
    not answer), and where the program has a handler of its own.
    """
    ours = threading.current_thread() is threading.main_thread() and int(os.environ.get("WORLD_SIZE", 1)) == 1
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    _Request.owner = os.getpid()
    signal.signal(signal.SIGTERM, _handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def saving_on_sigterm() -> Iterator[None]:
    """Within it the first SIGTERM is only noted: the training asks `stop_requested`, saves, and raises `Terminated`.

    Raises:
        Terminated: at the end, where the training did not ask any more.
    """
    with handling_sigterm():
        _Request.saving = True
        try:
            yield
            if _Request.asked:
                raise Terminated
        finally:
            _Request.saving = _Request.asked = False


def stop_requested() -> bool:
    """Whether SIGTERM has come since training began."""
    return _Request.asked
