"""A process that performs one task: `python -m sskd.bench.worker`, the task as JSON on its standard input."""

import os
import sys
import threading
import time
import traceback

from sskd.bench.task import Task, perform
from sskd.errors import UserError


def _end_with(parent: int) -> None:
    """Die with the process that gave the task: what it leaves behind must not go on in a run that is begun again."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def main() -> int:
    """0 where the run is finished; 2 with one line for what the user can put right; else 1 and a traceback."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    task = Task.parsed(sys.stdin.read())
    try:
        perform(task)
    except UserError as error:
        print(" ".join(str(error).split()), flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        print(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
