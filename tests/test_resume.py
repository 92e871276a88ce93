"""A run that is killed and repeated ends bitwise like one that never stopped."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sskd.cli.main import main
from tests.conftest import Cli
from tests.interruption import SHORT, Countdown, Crash, assert_equal, count_writes, outcome, words_for

HEAD_EPOCHS, EPOCHS = 6, 6
LENGTH = ("--epochs", EPOCHS, "--options.head_epochs", HEAD_EPOCHS)


@pytest.fixture(scope="module")
def never_stopped(few: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("reference") / "run"
    assert main(words_for(few, teacher, out, *LENGTH)) == 0
    return outcome(out)


def lines(run: Path, stage: str) -> int:
    log = run / "log.jsonl"
    return log.read_text().count(f'"stage": "{stage}"') if log.exists() else 0


def head_kept(run: Path) -> bool:
    return any(run.parent.glob("cache/*.safetensors"))


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "before the first checkpoint": lambda run: (run / "config.json").exists(),
    "in the head stage": lambda run: lines(run, "head") >= 3,
    "after the head stage": head_kept,
    "in the student stage": lambda run: lines(run, "student") >= 2,
    "late in the student stage": lambda run: lines(run, "student") >= 4,
}


def start(words: list[str]) -> Any:
    """A process of its own, forked from a clean one that has imported the package and nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sskd.cli.main"])
    process = context.Process(target=main, args=(words,))
    process.start()
    return process


def kill_at(words: list[str], run: Path, reached: Callable[[Path], bool]) -> None:
    process = start(words)
    deadline = time.monotonic() + 60
    while not reached(run):
        assert process.exitcode is None, "it ended before the moment came"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (run / "result.json").exists()


def finish(words: list[str], run: Path) -> None:
    process = start(words)
    process.join(60)
    assert process.exitcode == 0
    assert (run / "result.json").exists()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_once(moment: str, never_stopped: dict[str, Any], few: Path, teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = words_for(few, teacher, run, *LENGTH)
    kill_at(words, run, MOMENTS[moment])
    finish(words, run)
    assert_equal(outcome(run), never_stopped)


def test_killed_again_and_again(never_stopped: dict[str, Any], few: Path, teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = words_for(few, teacher, run, *LENGTH)
    for moment in MOMENTS.values():
        kill_at(words, run, moment)
    finish(words, run)
    assert_equal(outcome(run), never_stopped)


def test_killed_in_a_fresh_interpreter(never_stopped: dict[str, Any], few: Path, teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = words_for(few, teacher, run, *LENGTH)
    command = [sys.executable, "-c", "from sskd.cli.main import main; raise SystemExit(main())", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while lines(run, "student") < 1 and process.poll() is None:
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "result.json").exists()
    assert main(words) == 0
    assert_equal(outcome(run), never_stopped)


def test_crash_at_every_write(few: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def words(run: Path) -> list[str]:
        return words_for(few, teacher, run, *SHORT)

    with monkeypatch.context() as patch:
        counted = Countdown(0, "never")
        count_writes(patch, counted)
        assert main(words(tmp_path / "whole" / "run")) == 0
    expected = outcome(tmp_path / "whole" / "run")
    # labels, config, head's checkpoint, head, 2 checkpoints and what becomes of those before them, weights, config and
    # card of the student, result; 3 lines
    assert counted.calls == 15
    for at in range(1, counted.calls + 1):
        for moment in ("before", "after"):
            run = tmp_path / f"{moment}{at}" / "run"
            with monkeypatch.context() as patch:
                count_writes(patch, Countdown(at, moment))
                with pytest.raises(Crash):
                    main(words(run))
            assert main(words(run)) == 0
            assert_equal(outcome(run), expected)
            shutil.rmtree(run.parent)


def test_finished_run_is_left_alone(distil: Cli, tmp_path: Path) -> None:
    first = distil("--out", tmp_path / "run", *SHORT)
    assert first.code == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = distil("--out", tmp_path / "run", *SHORT)
    assert second.code == 0
    assert "is finished already; nothing to do" in second.out
    assert first.out.split("network", 1)[1] == second.out.split("network", 1)[1]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
