"""A run of several processes under torchrun loses one of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import Cli

EPOCHS = 40
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")


def words(few: Path, teacher: Path, out: Path) -> list[str]:
    options = {
        "teacher": teacher,
        "student": "cifar_resnet8",
        "data": few,
        "epochs": EPOCHS,
        "options.head_epochs": 1,
        "batch_size": 20,
        "validation": 0,
        "precision": "fp64",
        "channels_last": "false",
        "threads": 1,
        "batch_norm": "synchronised",
        "tensorboard": "false",
        "cache": out.parent / f"{out.name}-cache",
        "out": out,
    }
    return ["distill", *(f"--{name}={value}" for name, value in options.items())]


def started(arguments: list[str], restarts: int) -> "subprocess.Popen[str]":
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "--monitor-interval=0.2", f"--max-restarts={restarts}", "-m", "sskd", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def kill_second(out: Path) -> None:
    """End the second process once a checkpoint of the student is there."""
    log, until = out / "log.jsonl", time.monotonic() + 90
    while not (log.exists() and '"student"' in log.read_text()):
        assert time.monotonic() < until, "the run never got to the student"
        time.sleep(0.05)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            named = str(out) in (process / "cmdline").read_text() and "RANK=1" in (
                process / "environ"
            ).read_text().split("\0")
        except OSError:
            continue
        if named:
            os.kill(int(process.name), signal.SIGKILL)
            return
    pytest.fail("no second process")


def weights_differ(one: Path, other: Path) -> float:
    first, second = (load_file(run / "student" / "model.safetensors") for run in (one, other))
    return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)


def test_a_lost_process(few: Path, teacher: Path, tmp_path: Path, sskd: Cli) -> None:
    """torchrun starts both again, or the same command goes on alone: to the weights of one undisturbed process."""
    alone, restarted, continued = (tmp_path / name for name in ("alone", "restarted", "continued"))
    ends = {}
    for out, restarts in ((restarted, 1), (continued, 0)):
        process = started(words(few, teacher, out), restarts)
        kill_second(out)
        said, _ = process.communicate(timeout=120)
        ends[out] = process.returncode, said
    assert ends[restarted][0] == 0, ends[restarted][1]
    assert ends[continued][0] != 0
    assert "processes of this training was lost" in ends[continued][1] + ends[restarted][1]
    assert not (continued / "result.json").exists()
    for out in (alone, continued):
        done = sskd(*words(few, teacher, out))
        assert done.code == 0, done
    for out in (restarted, continued):
        assert weights_differ(out, alone) < 1e-6
        records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert [one["epoch"] for one in records if one["stage"] == "student"] == [*range(1, EPOCHS + 1)]
