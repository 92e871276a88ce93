"""A process that performs one task: `python -m sskd.bench.worker TASK`, the task as JSON; also under torchrun.

Its standard input is a pipe that nothing is written to: whoever gave the task holds the other end.
"""

import os
import signal
import sys
import threading
import traceback

from sskd.bench.task import Task, perform
from sskd.errors import UserError
from sskd.escaping import visible
from sskd.stopping import Terminated, handling_sigterm

FAILED = "failed: "  # begins the line of the log that says why


def _end_with_giver() -> None:
    """Die with the process that gave the task: what it leaves behind must not go on in a run that is begun again."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def main() -> int:
    """0 where the run is finished; 2 with one line for what the user can put right; else 1 and a traceback."""
    threading.Thread(target=_end_with_giver, daemon=True).start()
    task = Task.parsed(sys.argv[1])
    try:
        with handling_sigterm():
            perform(task)
    except UserError as error:
        print(FAILED + visible(" ".join(str(error).split())), flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    except Terminated:  # a checkpoint has been saved, if a training ran: end as the signal does
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    except Exception as error:
        traceback.print_exc()
        print(f"{FAILED}unexpected {type(error).__name__}: {visible(' '.join(str(error).split()))}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
