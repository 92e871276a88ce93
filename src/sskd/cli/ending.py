"""How a command ends when it is stopped, or when nobody takes what it prints."""

import errno
import os
import sys
from contextlib import suppress

CONTINUED = ("teacher", "distill", "demo", "bench", "study")  # commands that train
PIPE_CLOSED = 141  # as a shell sees what SIGPIPE ends


def stopped(command: str, how: str) -> str:
    """What a person should know of a command that was stopped: what was written stays whole in any case."""
    if command in CONTINUED:
        then = "the same command continues from the last checkpoint, if one was written"
    elif command == "report":
        then = "the report stays as it was last written"
    else:
        then = "the same command begins anew"
    return f"sskd: {how}; {then}."


def stdout_fault() -> OSError | None:
    """Write out what stdout still holds; why that cannot be done, if so. Python then has nothing left to fail with."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        return error
    return None


def output_failed(error: OSError) -> bool:
    """Whether this came of printing: what goes wrong with a file has the file's name, or is a `UserError`."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE)


def ended(status: int, fault: OSError | None = None) -> int:
    """The status to exit with, once all output is written; says what stood in its way (`fault`, if that is known)."""
    fault = stdout_fault() or fault
    if fault is None:
        return status
    if isinstance(fault, BrokenPipeError):  # such as `| head`, which has seen enough
        return status or PIPE_CLOSED
    print(f"sskd: the output could not be written: {fault.strerror or fault}.", file=sys.stderr)
    return status or 2
