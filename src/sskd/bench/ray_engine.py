"""Runs tasks on a Ray cluster, or on a Ray of its own on this machine. Needs the extra `ray`."""

import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from sskd.bench.local import log_of
from sskd.bench.schedule import Schedule
from sskd.bench.task import Outcome, Task, perform
from sskd.errors import UserError
from sskd.files import make_folder

TICK = 0.5  # seconds for which a look at the cluster waits


class RayEngine:
    """Each task is a Ray task in a process of its own; at most `jobs` at a time, as many as there is room for if None.

    Data, runs and cache lie where the tasks' paths say, seen from the folder in which this was started: on several
    machines that is a shared file system. A task whose worker or machine is lost is begun again up to `retries` times,
    and goes on from its last checkpoint.
    """

    def __init__(
        self,
        jobs: int | None,
        gpus: float = 0.0,
        cpus: float = 1.0,
        address: str | None = None,
        logs: Path = Path("logs"),
        retries: int = 2,
    ) -> None:
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise UserError(f"gpus is a share of one GPU, such as 0.5, or a whole number; got {gpus}.")
        self.jobs, self.gpus, self.cpus = jobs, gpus, cpus
        self.address, self.logs, self.retries = address, logs, retries

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        """The outcome of each task as it ends, and None in between. On leaving, whatever still runs is stopped.

        Raises:
            UserError: Ray is not installed, or the cluster cannot be reached.
        """
        ray = _imported()
        ours = self._join(ray)
        remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, max_calls=1)(_perform)
        schedule, flying = Schedule(tasks), dict[Any, Task]()
        try:
            while not schedule.done:
                while (self.jobs is None or len(flying) < self.jobs) and (task := schedule.next()) is not None:
                    flying[remote.remote(task.text(), str(Path.cwd()), str(log_of(self.logs, task)))] = task
                ended, _ = ray.wait([*flying], timeout=TICK) if flying else ([], [])
                for reference in ended:
                    yield from schedule.ended(_outcome(ray, reference, flying.pop(reference)))
                yield None
        finally:
            for reference in flying:
                ray.cancel(reference, force=True)
            if flying:
                _settled(ray, [*flying])
            if ours:
                ray.shutdown()

    def _join(self, ray: Any) -> bool:
        """Connect, unless that is done; whether a Ray of our own was started."""
        if ray.is_initialized():
            return False
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        address = self.address or os.environ.get("RAY_ADDRESS")
        try:
            _reach(address)
            ray.init(address=address or "auto", **quiet)
        except OSError as error:  # ConnectionError is one
            if address:
                raise UserError(
                    f"No Ray cluster answers at {address} ({' '.join(str(error).split())[:200]}). Start one with "
                    "`ray start --head`, or leave --address out for one on this machine."
                ) from error
            ray.init(include_dashboard=False, **quiet)
            return True
        return False


def _reach(address: str | None) -> None:
    """See whether somebody listens at HOST:PORT; Ray itself would try for a minute.

    Raises:
        OSError: nobody does.
    """
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=10).close()


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--engine ray needs Ray: pip install 'sskd[ray]'; or leave it out, to run on this machine."
        ) from error
    return ray


def _perform(text: str, folder: str, log: str) -> str:
    """Perform a task in a Ray worker; why it failed, empty where it did not."""
    task = Task.parsed(text)
    try:
        os.chdir(folder)
    except OSError:
        where = os.uname().nodename
        return f"the machine {where} does not see {folder}. Start the bench in a folder that all machines share."
    make_folder(Path(log).parent)
    with Path(log).open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            perform(task)
        except UserError as error:
            return " ".join(str(error).split())
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def _outcome(ray: Any, reference: Any, task: Task) -> Outcome:
    try:
        message = ray.get(reference)
    except ray.exceptions.OutOfMemoryError:
        message = "ran out of memory on its machine. Fewer --jobs or a smaller batch_size need less"
    except ray.exceptions.RayError as error:
        told = " ".join(str(error).split())[:200]
        message = f"its worker was lost, each time that it was begun ({type(error).__name__}: {told})"
    else:
        return Outcome(task, not message, message)
    return Outcome(task, False, f"{message}; the same command continues it.")


def _settled(ray: Any, references: list[Any]) -> None:
    """Wait until cancelled tasks have ended, so that nobody writes to their runs any more."""
    deadline = time.monotonic() + 10
    while references and time.monotonic() < deadline:
        _, references = ray.wait(references, num_returns=len(references), timeout=1)
