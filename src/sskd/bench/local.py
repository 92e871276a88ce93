"""Runs tasks in processes of this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sskd.bench.schedule import Schedule
from sskd.bench.task import Outcome, Task
from sskd.bench.worker import FAILED
from sskd.errors import UserError
from sskd.files import make_folder

TICK = 0.2  # seconds between two looks at the processes
RETRIES = 1  # of a process that was killed
SAVING = 10.0  # seconds, for trainings that are stopped to save a checkpoint


@dataclass
class _Running:
    task: Task
    process: "subprocess.Popen[bytes]"
    log: IO[str]
    begin: int  # of what it has written to the log
    device: str


class LocalEngine:
    """At most `jobs` trainings at a time, each of `processes`; where there are GPUs, it gets those with the fewest.

    Raises:
        UserError: there are fewer GPUs than a training has processes.
    """

    def __init__(self, jobs: int, logs: Path, devices: Sequence[str] = (), processes: int = 1) -> None:
        self.jobs, self.logs, self.processes = jobs, logs, processes
        self.devices = shared_out(devices, processes) or [""]
        self.running: list[_Running] = []

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        """The outcome of each task as it ends, and None at every tick. On leaving, whatever still runs is stopped."""
        schedule, killed = Schedule(tasks), dict[str, int]()
        try:
            while not schedule.done:
                while len(self.running) < self.jobs and (task := schedule.next()) is not None:
                    self.running.append(self._start(task))
                for one in [one for one in self.running if one.process.poll() is not None]:
                    self.running.remove(one)
                    outcome = self._ended(one)
                    killed[one.task.name] = killed.get(one.task.name, 0) + (one.process.returncode < 0)
                    if one.process.returncode < 0 and killed[one.task.name] <= RETRIES:
                        schedule.again(one.task)
                        continue
                    yield from schedule.ended(outcome)
                yield None
                time.sleep(TICK)
        finally:
            self._stop()

    def _start(self, task: Task) -> _Running:
        path = log_of(self.logs, task)
        make_folder(path.parent)
        log = path.open("a")
        begin = log.tell()
        device = min(self.devices, key=[one.device for one in self.running].count)
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": device} if device else {})
        command = [*launcher(self.processes), "-m", "sskd.bench.worker", task.text()]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        return _Running(task, process, log, begin, device)

    def _ended(self, one: _Running) -> Outcome:
        one.log.close()
        code = one.process.returncode
        if code == 0:
            return Outcome(one.task, True)
        if code < 0:
            return Outcome(one.task, False, killed_by(-code))
        lines = log_of(self.logs, one.task).read_bytes()[one.begin :].decode(errors="replace").splitlines()
        why = [line.removeprefix(FAILED) for line in lines if line.startswith(FAILED)]
        # The first: of several processes the others have then seen no more than that one was lost.
        return Outcome(one.task, False, [*why, *lines[-1:], f"ended with status {code}"][0])

    def _stop(self) -> None:
        for one in self.running:
            one.process.terminate()
        end = time.monotonic() + SAVING
        for one in self.running:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, end - time.monotonic()))
            if one.process.stdin:
                one.process.stdin.close()  # of several processes all see it
            one.process.kill()
            one.process.wait()
            one.log.close()
        self.running.clear()


def launcher(processes: int) -> list[str]:
    """Python, or torchrun for several processes; of which one that is killed is begun again, with the others."""
    if processes == 1:
        return [sys.executable]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*torchrun, f"--max-restarts={RETRIES}"]


def shared_out(devices: Sequence[str], processes: int) -> list[str]:
    """The GPUs as groups of `processes`, each as CUDA_VISIBLE_DEVICES has it; those that are left over stay idle.

    Raises:
        UserError: there are some, but too few for one group.
    """
    groups = [",".join(devices[i : i + processes]) for i in range(0, len(devices) - processes + 1, processes)]
    if devices and not groups:
        count = len(devices)
        raise UserError(f"There are {count} GPUs for trainings of {processes} processes. Say --processes {count}.")
    return groups


def log_of(logs: Path, task: Task) -> Path:
    """Where a task's output goes."""
    return logs / f"{task.kind}-{task.name.replace('/', '-')}.log"


def killed_by(number: int) -> str:
    """What a signal that ended a worker most likely means."""
    name = signal.Signals(number).name if number in {one.value for one in signal.Signals} else f"signal {number}"
    if number == signal.SIGKILL:
        return (
            f"was killed ({name}), most often because the machine's memory ran out. Fewer --jobs or a smaller "
            "batch_size need less; the same command continues it."
        )
    return f"was ended by {name}; the same command continues it."
