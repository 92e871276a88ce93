"""Runs tasks in processes of this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sskd.bench.schedule import Schedule
from sskd.bench.task import Outcome, Task
from sskd.files import make_folder

TICK = 0.2  # seconds between two looks at the processes
RETRIES = 1  # of a process that was killed


@dataclass
class _Running:
    task: Task
    process: "subprocess.Popen[str]"
    log: IO[str]
    device: str


class LocalEngine:
    """At most `jobs` processes at a time; where there are GPUs, each gets the one with the fewest."""

    def __init__(self, jobs: int, logs: Path, devices: Sequence[str] = ()) -> None:
        self.jobs = jobs
        self.logs = logs
        self.devices = list(devices) or [""]
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
        device = min(self.devices, key=[one.device for one in self.running].count)
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": device} if device else {})
        process = subprocess.Popen(
            [sys.executable, "-m", "sskd.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            text=True,
            env=environment,
        )
        assert process.stdin is not None
        process.stdin.write(task.text())
        process.stdin.close()
        return _Running(task, process, log, device)

    def _ended(self, one: _Running) -> Outcome:
        one.log.close()
        code = one.process.returncode
        if code == 0:
            return Outcome(one.task, True)
        if code < 0:
            return Outcome(one.task, False, killed_by(-code))
        lines = log_of(self.logs, one.task).read_text(errors="replace").splitlines()
        return Outcome(one.task, False, lines[-1] if lines else f"ended with status {code}")

    def _stop(self) -> None:
        for one in self.running:
            one.process.terminate()
        for one in self.running:
            try:
                one.process.wait(10)
            except subprocess.TimeoutExpired:
                one.process.kill()
            one.log.close()
        self.running.clear()


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
