"""Grids that are run: failures beside successes, kills, and what is not run again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sskd.bench.grid import tasks_of
from sskd.bench.local import LocalEngine, _Running, killed_by, log_of, shared_out
from sskd.bench.recipe import load_recipe
from sskd.bench.task import Outcome, Task, changed
from sskd.errors import UserError
from tests.benches import BASE, TRAINING, write_recipe
from tests.conftest import Cli
from tests.interruption import untimed

SSKD = Path(sys.executable).parent / "sskd"
LONG: dict[str, Any] = {**TRAINING, "epochs": 30, "tensorboard": False}


def accuracies(out: Path) -> list[Any]:
    """What must not depend on when a grid was stopped."""
    runs = json.loads((out / "table.json").read_text())["runs"]
    results = [json.loads(path.read_text()) for path in sorted(out.glob("*/**/result.json"))]
    assert len(results) == len(runs) > 2
    return [
        *((run["folder"], run["last"], run["best"], run["best_epoch"], run["epochs"], run["status"]) for run in runs),
        *((result["weights"], untimed(result["last"])) for result in results),
    ]


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that still run."""
    lines = subprocess.run(["ps", "-eo", "pid,stat"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [pid for pid in pids if any(line.split()[0] == str(pid) and "Z" not in line.split()[1] for line in lines)]


def children(pid: int) -> list[int]:
    """Processes that this one has started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def kill_at_random(words: list[str], out: Path, after: float) -> list[int]:
    """Start a bench, wait until a run has logged something and a while more, kill it without a warning; its workers."""
    process = subprocess.Popen([SSKD, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = {path: path.stat().st_size for path in out.glob("*/**/log.jsonl")}
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if {path: path.stat().st_size for path in out.glob("*/**/log.jsonl")} != before:
            break
        time.sleep(0.05)
    time.sleep(after)
    started = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return started


def test_killed_and_continued(few: Path, tmp_path: Path, sskd: Cli) -> None:
    """Twice, at random; the table is that of a grid that never stopped, and no worker survives its bench."""
    recipe = write_recipe(tmp_path, data=str(few), training=LONG)
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    chance, words = random.Random(os.getpid()), ["bench", str(recipe), "--out", str(broken), "--jobs", "2"]
    for _ in range(2):
        started = kill_at_random(words, broken, chance.uniform(0.0, 1.5))
        deadline = time.monotonic() + 20  # a busy machine takes its time
        while alive(started) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert started and not alive(started)
    for out in (broken, whole):
        done = sskd("bench", recipe, "--out", out, "--jobs", "2")
        assert done.code == 0, done
    assert accuracies(broken) == accuracies(whole)
    again = sskd("bench", recipe, "--out", whole)
    assert again.code == 0 and "FAILED" not in again.out and "cifar_resnet8--cifar_resnet8/kd-seed0: " not in again.out


def test_failures_do_not_stop_the_others(few: Path, tmp_path: Path, sskd: Cli) -> None:
    """A method that does not fit, a teacher that cannot be trained; both are said, and what fits is run."""
    pairs = [*BASE["pairs"], {"teacher": "cifar_resnet8", "student": "cifar_resnet8x4"}]
    pairs.append({"teacher": "vit_tiny_patch16_224", "student": "cifar_resnet8"})
    recipe = write_recipe(tmp_path, data=str(few), pairs=pairs, methods={"fsp": {"init_epochs": 1}})
    out = tmp_path / "out"
    outcome = sskd("bench", recipe, "--out", out, "--jobs", "2")
    assert outcome.code == 2 and "3 of 5 trainings failed" in outcome.err
    assert "so both networks need as many: stem of the student is [32, 8, 8]" in outcome.out
    assert "vit_tiny_patch16_224-seed0: FAILED: none of its students can be trained: vit_tiny" in outcome.out
    lines = json.loads((out / "table.json").read_text())["rows"]
    assert [(line["label"], line["n"], bool(line["failed"])) for line in lines if line["label"] == "fsp"] == [
        ("fsp", 1, False),
        ("fsp", 0, True),
        ("fsp", 0, True),
    ]


def test_trainings_of_several_processes(few: Path, teacher: Path, tmp_path: Path, sskd: Cli) -> None:
    """All end with the bench that has started them; the same command continues what they began."""
    values: dict[str, Any] = {
        "data": str(few),
        "training": LONG,
        "methods": {"kd": {}},
        "teachers": {"cifar_resnet8": str(teacher)},
    }
    recipe, out = write_recipe(tmp_path, **values), tmp_path / "out"
    (task,) = (task for task in tasks_of(load_recipe(str(recipe)), out) if task.kind == "student")
    begun = LocalEngine(1, out / "logs", processes=2)._start(task)
    deadline = time.monotonic() + 300
    while not (task.folder / "log.jsonl").exists() and begun.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    started = children(begun.process.pid)
    assert len(started) == 2 and begun.process.stdin is not None
    begun.process.stdin.close()  # as when the bench is killed
    assert begun.process.wait(300) != 0 and alive(started) == []
    done = sskd("bench", recipe, "--out", out, "--processes", "2")
    assert done.code == 0 and json.loads((task.folder / "config.json").read_text())["environment"]["processes"] == 2
    records = [json.loads(line) for line in (task.folder / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [*range(1, LONG["epochs"] + 1)]


def test_gpus_are_shared_out() -> None:
    assert shared_out(["0", "1", "2", "3", "4"], 2) == ["0,1", "2,3"]
    assert shared_out(["a", "b"], 1) == ["a", "b"] and shared_out([], 4) == []
    with pytest.raises(UserError, match=r"There are 2 GPUs for trainings of 3 processes\. Say --processes 2"):
        shared_out(["0", "1"], 3)


def test_a_changed_recipe_does_not_take_old_results(few: Path, tmp_path: Path, sskd: Cli) -> None:
    methods = {"kd": {"temperature": 3}, "ce": {}}
    out = tmp_path / "out"
    assert sskd("bench", write_recipe(tmp_path, data=str(few), methods=methods), "--out", out).code == 0
    out = out.rename(tmp_path / "moved")
    again = sskd("bench", write_recipe(tmp_path, data=str(few), methods=methods), "--out", out)
    assert again.code == 0 and "-seed0: " not in again.out, "a folder that was moved is the same bench"
    hotter = {"kd": {"temperature": 5}, "ce": {}}
    outcome = sskd("bench", write_recipe(tmp_path, data=str(few), methods=hotter), "--out", out)
    assert outcome.code == 2 and "another config (arguments: options.temperature: 3 there, 5 now)" in outcome.out
    assert "ce-seed0" not in outcome.err
    other = write_recipe(tmp_path, data=str(few), methods=methods, teacher_training={"epochs": 5})
    outcome = sskd("bench", other, "--out", out)
    assert outcome.code == 2 and "3 of 3 trainings failed" in outcome.err and "epochs: 2 there, 5 now" in outcome.err
    assert "its teacher cifar_resnet8-seed0 failed" in outcome.out


def test_words_that_are_refused(tmp_path: Path, sskd: Cli) -> None:
    recipe = write_recipe(tmp_path)
    for words, message in (
        (("--methods", "[kdd]"), "named 'kdd'. Did you mean 'kd'"),
        (("--jobs", "0"), "jobs must be at least 1"),
        (("--processes", "0"), "processes must be at least 1"),
        (("--processes", "2", "--engine", "ray"), "--engine ray trains in one process each"),
        (("--gpus", "0.5"), "are for --engine ray"),
    ):
        outcome = sskd("bench", recipe, "--out", tmp_path / "out", *words)
        assert outcome.code == 2 and message in outcome.err
    assert not (tmp_path / "out" / "cells").exists()


def test_why_several_processes_failed(tmp_path: Path) -> None:
    """The first reason, of this attempt, from among what torchrun and the other processes say."""
    engine, task = LocalEngine(1, tmp_path), Task("a", "student", tmp_path / "a", {})
    before, after = "failed: long ago\n", "noted\nfailed: no such data\nfailed: another was lost\nChildFailedError\n"
    log_of(tmp_path, task).write_text(before + after)
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    ended.wait()
    with log_of(tmp_path, task).open("a") as log:
        assert engine._ended(_Running(task, ended, log, len(before), "")).message == "no such data"


class Sleeper:
    """Stands in for a worker that is killed by the system again and again."""

    def __init__(self, *_: object, **__: object) -> None:
        self.returncode = -signal.SIGKILL
        self.stdin = open(os.devnull, "w")  # noqa: SIM115, PTH123

    def poll(self) -> int:
        return self.returncode


def test_a_worker_that_runs_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried once more, then given up with what to do; the other task is not touched by it."""
    started = []

    def start(*words: object, **_: object) -> Sleeper:
        started.append(words)
        return Sleeper()

    monkeypatch.setattr("sskd.bench.local.subprocess.Popen", start)
    tasks = [Task(name, "student", tmp_path / name, {"data": "x"}) for name in ("a", "b")]
    outcomes = [one for one in LocalEngine(1, tmp_path / "logs").run(tasks) if one is not None]
    assert len(started) == 4 and [one.task.name for one in outcomes] == ["a", "b"]
    assert all(not one.ok and "memory ran out. Fewer --jobs or a smaller batch_size" in one.message for one in outcomes)
    assert "SIGTERM" in killed_by(15) and Outcome(tasks[0], True).message == ""


def test_changes_are_those_that_count(tmp_path: Path) -> None:
    """Also those by which an argument is no longer given."""
    kept = {
        "network": "cifar_resnet8",
        "data": "digits",
        "method": "ce",
        "training": {"epochs": 3, "threads": 2, "optim": {"lr": 0.1}, "validation": 12.0},
    }
    given = {"model": "cifar_resnet8", "data": "digits", "epochs": 3, "threads": 1, "validation": 12}
    task = Task("t", "teacher", tmp_path, {**given, "optim": {"lr": 0.1}})
    assert changed(task) == ""  # not begun
    (tmp_path / "config.json").write_text(json.dumps({"arguments": kept}))
    assert changed(task) == ""
    other = Task("t", "teacher", tmp_path, {**given, "epochs": 4, "optim": {"lr": 0.2}})
    assert "epochs: 3 there, 4 now; training.optim.lr: 0.1 there, 0.2 now" in changed(other)
    assert "(arguments: training.optim.lr: 0.1 there, None now)" in changed(Task("t", "teacher", tmp_path, given))
