"""The bench on a real Ray of this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sskd.bench.grid import tasks_of
from sskd.bench.ray_engine import RayEngine, _outcome
from sskd.bench.recipe import load_recipe
from sskd.bench.task import Outcome, Task, perform
from sskd.errors import UserError
from tests.benches import TRAINING, write_recipe
from tests.conftest import Cli
from tests.interruption import untimed

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'sskd[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A local cluster with two processors, for all tests: starting one takes seconds."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # else a busy machine never gets to them
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module", autouse=True)
def stranger(cluster: None) -> Iterator["subprocess.Popen[str]"]:
    """A bench in another process, which asks for too much; begun early, as it takes seconds."""
    script = "from sskd.bench.ray_engine import RayEngine; list(RayEngine(1, gpus=99).run([]))"
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def tasks_in(folder: Path, few: Path, epochs: int, **changed: Any) -> list[Task]:
    training = {**TRAINING, "epochs": epochs, "tensorboard": False}
    recipe = write_recipe(folder, data=str(few), training=training, **changed)
    return tasks_of(load_recipe(str(recipe)), folder / "out")


def ran(tasks: list[Task], folder: Path, jobs: int | None = 2) -> list[Outcome]:
    return [one for one in RayEngine(jobs, logs=folder / "logs").run(tasks) if one is not None]


def result(task: Task) -> dict[str, Any]:
    values = json.loads((task.folder / "result.json").read_text())
    return {"weights": values["weights"], "last": untimed(values["last"])}


def worker_of(task: Task) -> int:
    """The process that trains this task, seen by its open log file; 0 where there is none."""
    log = f"{task.kind}-{task.name.replace('/', '-')}.log"
    lines = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    for pid in (line.split()[0] for line in lines if "ray::" in line):
        try:
            if any(link.readlink().name == log for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()):
                return int(pid)
        except OSError:
            continue
    return 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are found in /proc")
def test_a_killed_worker_is_replaced(cluster: None, few: Path, teacher: Path, tmp_path: Path) -> None:
    """Its training goes on from the last checkpoint, and ends bitwise as one that nobody disturbed."""
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    for folder in (quiet, disturbed):
        folder.mkdir()
    given: dict[str, Any] = {"methods": {"kd": {}}, "teachers": {"cifar_resnet8": str(teacher)}}
    undisturbed = tasks_in(quiet, few, 60, **given)
    perform(undisturbed[-1])
    tasks, killed, outcomes = tasks_in(disturbed, few, 60, **given), 0, list[Outcome]()
    cell = tasks[-1]
    for one in RayEngine(2, logs=disturbed / "logs").run(tasks):
        outcomes += [one] if one else []
        if not killed and (cell.folder / "checkpoint.pt").exists() and (killed := worker_of(cell)):
            os.kill(killed, signal.SIGKILL)
    assert killed
    assert [one.ok for one in outcomes] == [True]
    assert result(cell) == result(undisturbed[-1])
    log = disturbed / "logs" / "student-cifar_resnet8--cifar_resnet8-kd-seed0.log"
    assert log.read_text().count("images in column") == 2, "begun twice"


def test_failures_and_successes(cluster: None, few: Path, tmp_path: Path) -> None:
    tasks = tasks_in(tmp_path, few, 1, methods={"ce": {}, "kd": {}})
    nowhere = {**tasks[-1].arguments, "teacher": str(tmp_path / "nowhere")}
    mistaken = replace(tasks[-1], name="mistaken", folder=tmp_path / "mistaken", arguments=nowhere, teacher=None)
    outcomes = {one.task.name: one for one in ran([mistaken, *tasks], tmp_path, jobs=None)}
    failed = outcomes.pop("mistaken")
    assert not failed.ok and "There is no network at" in failed.message and "\n" not in failed.message
    assert len(outcomes) == 3 and all(one.ok for one in outcomes.values())
    assert all((task.folder / "result.json").exists() for task in tasks)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ray.exceptions.WorkerCrashedError(), "worker was killed each time.*Fewer --jobs.*same command continues it"),
        (ray.exceptions.OutOfMemoryError("x"), "ran out of memory.*Fewer --jobs.*same command continues it"),
        (ray.exceptions.NodeDiedError("x"), "machine was lost.*same command continues it"),
        (ray.exceptions.RaySystemError("x\ny"), r"could not run it \(RaySystemError: [^\n]*same command"),
        (ray.exceptions.RayTaskError("f", "trace", UserError("a\nb")), "^a b$"),
        (ray.exceptions.RayTaskError("f", "trace", OSError("a\nb")), "^unexpected OSError: a b$"),
    ],
)
def test_what_is_said_of_a_loss(error: Exception, told: str) -> None:
    def get(_: object) -> str:
        raise error

    outcome = _outcome(SimpleNamespace(get=get, exceptions=ray.exceptions), None, Task("a", "student", Path("a"), {}))
    assert not outcome.ok and re.search(told, outcome.message), outcome.message


def test_a_request_that_nobody_can_meet(stranger: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """It is refused where the Ray is our own, said where it is not; the stranger did not join this process's Ray."""
    with pytest.warns(UserWarning, match="offers 1 CPUs and 99 GPUs"):
        assert list(RayEngine(1, gpus=99, logs=tmp_path).run([])) == []
    _, told = stranger.communicate(timeout=60)
    assert "UserError: No machine that Ray has offers 1 CPUs and 99 GPUs" in told


def test_the_command(cluster: None, few: Path, teacher: Path, tmp_path: Path, sskd: Cli) -> None:
    training = {**TRAINING, "epochs": 1, "tensorboard": False}
    given: dict[str, Any] = {"methods": {"ce": {}}, "teachers": {"cifar_resnet8": str(teacher)}}
    recipe = write_recipe(tmp_path, data=str(few), training=training, **given)
    done = sskd("bench", recipe, "--out", tmp_path / "out", "--engine", "ray", "--jobs", "1")
    assert done.code == 0, done
    assert (tmp_path / "out" / "table.md").exists() and "ce-seed0" in done.out


def test_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="share of one GPU"):
        RayEngine(1, gpus=1.5)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'sskd\[ray\]'"):
        next(RayEngine(1).run([Task("a", "student", tmp_path / "a", {})]))


def test_a_cluster_that_is_not_there() -> None:
    ray.shutdown()
    began = time.monotonic()
    with pytest.raises(UserError, match=r"Ray cluster at 127\.0\.0\.1:1 cannot be joined"):
        next(RayEngine(1, address="127.0.0.1:1").run([Task("a", "student", Path("a"), {})]))
    assert time.monotonic() - began < 20
