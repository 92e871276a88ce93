"""A run of several processes under torchrun loses one of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import Cli

EPOCHS = 4
HERE = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="connections are found in /dev/fd")


def words(few: Path, teacher: Path, out: Path) -> list[str]:
    options = {
        "teacher": teacher,
        "student": "cifar_resnet8",
        "data": few,
        "epochs": EPOCHS,
        "options.head_epochs": 1,
        "batch_size": 20,
        "validation": 0,
        "checkpoint_every": 0,
        "precision": "fp64",
        "channels_last": "false",
        "threads": 1,
        "batch_norm": "synchronised",
        "tensorboard": "false",
        "cache": out.parent / f"{out.name}-cache",
        "out": out,
    }
    return ["distill", *(f"--{name}={value}" for name, value in options.items())]


def under_torchrun(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "--monitor-interval=0.2", "--max-restarts=1", "-m", "tests.losing", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE, timeout=600)


def weights_differ(one: Path, other: Path) -> float:
    first, second = (load_file(run / "student" / "model.safetensors") for run in (one, other))
    return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)


def test_a_lost_process(few: Path, teacher: Path, tmp_path: Path, sskd: Cli) -> None:
    """torchrun starts both again; lost for good, the same command goes on alone: to the weights of one process."""
    alone, lost = tmp_path / "alone", tmp_path / "lost"
    ended = under_torchrun(words(few, teacher, lost))
    assert ended.returncode != 0 and not (lost / "result.json").exists()
    assert "Another of the 2 processes of this training was lost" in ended.stderr, ended.stderr
    records = [json.loads(line) for line in (lost / "log.jsonl").read_text().splitlines()]
    assert [one["epoch"] for one in records if one["stage"] == "student"] == [1, 2], ended.stderr  # 2: started again
    for out in (alone, lost):
        done = sskd(*words(few, teacher, out))
        assert done.code == 0, done
    assert weights_differ(lost, alone) < 1e-6
    records = [json.loads(line) for line in (lost / "log.jsonl").read_text().splitlines()]
    assert [one["epoch"] for one in records if one["stage"] == "student"] == [*range(1, EPOCHS + 1)]
