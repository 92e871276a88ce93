"""A run that is killed and repeated ends bitwise like one that never stopped."""

import json
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
import torch
from safetensors.torch import load_file

from sskd.cli.main import main
from sskd.runs import Run
from tests.conftest import TRAINING, Cli

HEAD_EPOCHS, EPOCHS = 6, 6
LENGTH = ("--epochs", EPOCHS, "--options.head_epochs", HEAD_EPOCHS)
SHORT = ("--epochs", "2", "--options.head_epochs", "1")
TIMED = ("seconds", "images_per_s", "evaluation_seconds")


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMED}


def tensors(path: Path) -> dict[str, bytes]:
    """What a safetensors file holds, without its record of how long it took."""
    return {name: value.numpy().tobytes() for name, value in load_file(path).items()}


def outcome(run: Path) -> dict[str, Any]:
    """All of a run that must not depend on when it was stopped."""
    result = json.loads((run / "result.json").read_text())
    for key in ("seconds", "finished"):
        del result[key]
    for key in ("last", "best"):
        result[key] = result[key] and untimed(result[key])
    records = [untimed(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        "weights": (run / "student" / "model.safetensors").read_bytes(),
        "config": (run / "student" / "config.json").read_text(),
        "result": result,
        "log": [record for record in records if "reused" not in record],
        "heads": {path.name: tensors(path) for path in (run.parent / "cache").iterdir()},
        "leftovers": sorted(path.name for path in run.rglob("*") if path.name.startswith(".")),
    }


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["result"] == other["result"]
    assert one["log"] == other["log"]
    assert one == other


def words_for(few: Path, teacher: Path, out: Path, *more: object) -> list[str]:
    given = ("--student", "cifar_resnet8", "--data", few, "--teacher", teacher, "--out", out, "--fraction", "0.7")
    return ["distill", *map(str, given), *TRAINING, "--validation", "0.2", *map(str, more)]


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


class Crash(BaseException):
    """The process ends here: nothing catches it."""


class Countdown:
    """Raises at the n-th of the calls that it counts, before or after the call does its work."""

    def __init__(self, at: int, moment: str) -> None:
        self.at, self.moment, self.calls = at, moment, 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            here = self.calls == self.at
            if here and self.moment == "before":
                raise Crash
            value = function(*arguments, **keywords)
            if here and self.moment == "after":
                raise Crash
            return value

        return counted


def count_writes(monkeypatch: pytest.MonkeyPatch, countdown: Countdown) -> None:
    """Count every change that a run makes to the disk: a file put in its place, a line of the log."""
    monkeypatch.setattr(Path, "replace", countdown.wrap(Path.replace))
    monkeypatch.setattr(Run, "log", countdown.wrap(Run.log))


def test_crash_at_every_write(few: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def words(run: Path) -> list[str]:
        return words_for(few, teacher, run, *SHORT)

    with monkeypatch.context() as patch:
        counted = Countdown(0, "never")
        count_writes(patch, counted)
        assert main(words(tmp_path / "whole" / "run")) == 0
    expected = outcome(tmp_path / "whole" / "run")
    # config, head's checkpoint, head, 2 checkpoints, weights and config of the student, result; 3 log lines
    assert counted.calls == 11
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


def stop_after(monkeypatch: pytest.MonkeyPatch, command: Callable[[], object], writes: int) -> None:
    with monkeypatch.context() as patch:
        count_writes(patch, Countdown(writes, "after"))
        with pytest.raises(Crash):
            command()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--seed", "7"), "training.seed: 0 there, 7 now"),
        (("--optim.lr", "0.5"), "training.optim.lr: None there, 0.5 now"),
        (("--options.ss", "3"), "options.ss: None there, 3 now"),
        (("--teacher_data", "subset"), "teacher_data: 'full' there, 'subset' now"),
    ],
)
def test_other_config_is_refused(
    changed: tuple[str, str], message: str, distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stop_after(monkeypatch, lambda: distil("--out", run, *SHORT), 1)
    refused = distil("--out", run, *SHORT, *changed)
    assert refused.code == 2
    assert f"{run} holds a run of another config (arguments: {message})" in refused.err
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_other_teacher_or_data_under_the_same_name(
    few: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sskd: Cli
) -> None:
    """The arguments are the same words; what they name has changed."""
    data, model, run = tmp_path / "data", tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(few, data)
    shutil.copytree(teacher, model)
    words = words_for(data, model, run, *SHORT)
    stop_after(monkeypatch, lambda: main(words), 5)
    weights = model / "student" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = sskd(*words)
    assert refused.code == 2
    assert "another config (teacher: weights: '" in refused.err
    shutil.copy(teacher / "student" / "model.safetensors", weights)
    shutil.copy(data / "test.parquet", data / "train.parquet")
    refused = sskd(*words)
    assert refused.code == 2
    assert "another config (data: mean: " in refused.err
    assert "; teacher_images: 48 there, 24 now; " in refused.err


def test_half_a_line_and_half_a_file(few: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = words_for(few, teacher, tmp_path / "a" / "run", *SHORT)
    assert main(words) == 0
    run = tmp_path / "b" / "run"
    words = words_for(few, teacher, run, *SHORT)
    stop_after(monkeypatch, lambda: main(words), 6)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"stage": "student", "epo')
    for name in (".checkpoint.pt.tmp", ".config.json.tmp"):
        (run / name).write_bytes(b"half")
    assert main(words) == 0
    for name in (".checkpoint.pt.tmp", ".config.json.tmp"):
        (run / name).unlink(missing_ok=True)
    assert_equal(outcome(run), outcome(tmp_path / "a" / "run"))


def test_killed_while_the_config_was_written(distil: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".config.json.tmp").write_bytes(b"{")
    assert distil("--out", run, *SHORT).code == 0


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_damaged_checkpoint(
    content: bytes | None, distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stop_after(monkeypatch, lambda: distil("--out", run, *SHORT), 8)
    checkpoint = run / "checkpoint.pt"
    if content is None:
        torch.save({"weights": torch.zeros(2)}, checkpoint)
    else:
        checkpoint.write_bytes(content and checkpoint.read_bytes()[:-100])
    log = (run / "log.jsonl").read_text()
    refused = distil("--out", run, *SHORT)
    assert refused.code == 2
    assert f"The checkpoint {checkpoint} cannot be read" in refused.err
    assert "Delete it to start the run anew" in refused.err
    assert "Traceback" not in refused.err
    assert (run / "log.jsonl").read_text() == log
    checkpoint.unlink()
    assert distil("--out", run, *SHORT).code == 0


def test_other_threads_and_processor_are_warned_of(
    distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stop_after(monkeypatch, lambda: distil("--out", run, *SHORT), 6)
    config = json.loads((run / "config.json").read_text())
    config["environment"]["processor"] = "Abacus, 7 cores"
    (run / "config.json").write_text(json.dumps(config))
    resumed = distil("--out", run, *SHORT, "--threads", "2")
    assert resumed.code == 0
    assert "This run began with 1 threads; it goes on with as many." in resumed.out
    assert torch.get_num_threads() == 1
    assert "This run began on Abacus, 7 cores" in resumed.out


def reused(outcome: Any) -> bool:
    assert outcome.code == 0, outcome.err
    return "head: reused from" in outcome.out


def test_head_is_shared(distil: Cli, tmp_path: Path) -> None:
    once = ("--epochs", "1", "--options.head_epochs", "1")
    assert not reused(distil("--out", tmp_path / "0", *once))
    (head,) = (tmp_path / "cache").iterdir()
    content, trained = head.read_bytes(), tensors(head)
    assert reused(distil("--out", tmp_path / "1", *once, "--seed", "1"))
    assert reused(distil("--out", tmp_path / "2", *once, "--options.ss", "3", "--options.temperature", "2"))
    assert reused(distil("--out", tmp_path / "3", *once, "--student", "cifar_resnet14", "--optim.lr", "0.2"))
    assert reused(distil("--out", tmp_path / "4", *once, "--fraction", "0.5", "--epochs", "2"))
    assert reused(distil("--out", tmp_path / "elsewhere" / "5", "--cache", tmp_path / "cache", *once))
    assert head.read_bytes() == content
    assert trained
    head.write_bytes(content[:-10])
    assert not reused(distil("--out", tmp_path / "6", *once))
    assert tensors(head) == trained, "whoever trains the head gets the same one"
    one, other = (tmp_path / name / "student" / "model.safetensors" for name in ("0", "6"))
    assert one.read_bytes() == other.read_bytes(), "reused or trained in this run, the head is the same"


@pytest.mark.parametrize(
    "changed",
    [
        ("--batch_size", "15"),
        ("--validation", "0.2"),
        ("--teacher_data", "subset", "--fraction", "0.7"),
        ("--padding", "2"),
        ("--flip", "0"),
        ("--options.head_epochs", "2"),
        ("--options.head_lr", "0.01"),
        ("--precision", "bf16"),
    ],
)
def test_head_is_not_shared(changed: tuple[str, ...], distil: Cli, tmp_path: Path) -> None:
    once = ("--epochs", "1", "--options.head_epochs", "1")
    assert not reused(distil("--out", tmp_path / "0", *once))
    assert not reused(distil("--out", tmp_path / "1", *once, *changed))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_head_is_not_shared_between_teachers(few: Path, teacher: Path, sskd: Cli, tmp_path: Path) -> None:
    other = tmp_path / "teacher"
    shutil.copytree(teacher, other)
    weights = other / "student" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for number, model in enumerate((teacher, other)):
        assert not reused(sskd(*words_for(few, model, tmp_path / "runs" / str(number), *SHORT)))
    assert len(list((tmp_path / "runs" / "cache").iterdir())) == 2


def test_checkpoints_hold_no_code(distil: Cli, tmp_path: Path) -> None:
    assert distil("--out", tmp_path / "run", *SHORT).code == 0
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert (state["stage"], state["epoch"], state["log_lines"]) == ("student", 2, 3)
    assert not any(key.startswith("teacher.") for key in state["modules"])
