"""Runs tasks on a Ray cluster, or on a Ray of its own on this machine. Needs the extra `ray`."""

import math
import os
import socket
import sys
import time
import traceback
import warnings
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
QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
LESS = "Fewer --jobs or a smaller batch_size need less"


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
            UserError: Ray is not installed, the cluster cannot be reached, or this machine has no room for a task.
        """
        ray = _imported()
        ours = self._join(ray)
        schedule, flying = Schedule(tasks), dict[Any, Task]()
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": self.retries, "retry_exceptions": False}
        try:
            self._check_room(ray, ours)
            remote = ray.remote(**options, max_calls=1)(_perform)  # max_calls: each task in a process of its own
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
        os.environ.setdefault("RAY_task_oom_retries", str(self.retries))  # Ray's own default is: for ever
        address = self.address or os.environ.get("RAY_ADDRESS") or "auto"
        address = _noted() if address == "auto" else address
        if address == "local":
            more = math.ceil(self.cpus) if self.cpus > (os.cpu_count() or 1) else None  # one task always has room
            ray.init(address="local", num_cpus=more, include_dashboard=False, **QUIET)
            return True
        try:
            _reach(address)
            ray.init(address=address, **QUIET)
        except OSError as error:  # ConnectionError is one
            raise UserError(
                f"The Ray cluster at {address} cannot be joined ({' '.join(str(error).split())[:200]}). Start one with "
                "`ray start --head`; where it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH; or "
                "have a Ray of this command's own with --address local."
            ) from error
        return False

    def _check_room(self, ray: Any, ours: bool) -> None:
        """Ray lets a task that no machine has room for wait for ever; a cluster may grow, one of our own does not."""
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(one.get("CPU", 0) >= self.cpus and one.get("GPU", 0) >= self.gpus for one in machines):
            return
        told = f"No machine that Ray has offers {self.cpus:g} CPUs and {self.gpus:g} GPUs, which a training asks for."
        if ours:
            raise UserError(f"{told} Lower --gpus, or threads in the recipe's training.")
        warnings.warn(f"{told} None runs before one joins the cluster.", stacklevel=3)


def _noted() -> str:
    """The address that `ray start` noted on this machine, if it answers; else "local".

    Ray's own "auto" also finds the Ray that another bench has started for itself, and ends with it.
    """
    note = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    try:
        address = note.read_text().strip()
        _reach(address)
    except OSError:  # no note, or that of a Ray that was killed
        return "local"
    return address


def _reach(address: str) -> None:
    """See whether somebody listens at HOST:PORT; Ray itself would try for a minute.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.rpartition(":")
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
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc(file=sys.stderr)
            return _told(error)
    return ""


def _told(error: BaseException) -> str:
    line = " ".join(str(error).split())
    return line if isinstance(error, UserError) else f"unexpected {type(error).__name__}: {line}"


def _outcome(ray: Any, reference: Any, task: Task) -> Outcome:
    errors = ray.exceptions
    try:
        message = ray.get(reference)
    except errors.RayTaskError as error:  # an exception from outside the training, such as a log that is no file
        return Outcome(task, False, _told(error.cause))
    except errors.OutOfMemoryError:
        message = f"ran out of memory on its machine. {LESS}"
    except errors.WorkerCrashedError:
        message = f"its worker was killed each time, most often because its machine's memory ran out. {LESS}"
    except (errors.NodeDiedError, errors.LocalRayletDiedError):
        message = "its machine was lost each time, or the Ray on it"
    except errors.RayError as error:
        message = f"Ray could not run it ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    else:
        return Outcome(task, not message, message)
    return Outcome(task, False, f"{message}; the same command continues it.")


def _settled(ray: Any, references: list[Any]) -> None:
    """Wait until cancelled tasks have ended, so that nobody writes to their runs any more."""
    deadline = time.monotonic() + 10
    while references and time.monotonic() < deadline:
        _, references = ray.wait(references, num_returns=len(references), timeout=1)
