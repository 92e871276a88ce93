"""The command line as torchrun starts it, but that process number $LOST is lost in the middle of an epoch. For tests.

At first it is killed; when it was started again, its connections break.
"""

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from sskd.cli.main import main
from sskd.train.averaging import Averaging

STEPS = {0: 8, 1: 5}  # at which of its training steps, by attempt: 3 are the head's, 3 make an epoch


def lose() -> None:
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    for open_file in list(Path("/dev/fd").iterdir()):
        with suppress(OSError), socket.socket(fileno=os.dup(int(open_file.name))) as connection:
            connection.getpeername()  # not of what listens: gloo ends its own process when that breaks
            connection.shutdown(socket.SHUT_RDWR)
    time.sleep(600)  # torchrun ends it


def counted(steps: int) -> None:
    plain = Averaging.__call__
    left = iter(range(steps - 1))

    def average(averaging: Averaging) -> None:
        if next(left, None) is None:
            lose()
        plain(averaging)

    Averaging.__call__ = average  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    if any(word.startswith("--data=hub:") for word in sys.argv):
        import datasets

        datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0.1  # 5 s after each epoch
    if os.environ["RANK"] == os.environ["LOST"]:
        counted(STEPS[int(os.environ["TORCHELASTIC_RESTART_COUNT"])])
    sys.exit(main())
