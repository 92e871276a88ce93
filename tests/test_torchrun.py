"""A run of several processes under torchrun loses one of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from benchmarks.photographs import write_shards
from tests.conftest import Cli
from tests.photographs import write_streamable

EPOCHS = 3
HERE = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="connections are found in /dev/fd")
USUAL = {
    "batch_size": 20,
    "precision": "fp64",
    "channels_last": "false",
    "threads": 1,
    "tensorboard": "false",
}
PHOTOGRAPHS = {**USUAL, "size": 32, "workers": 1}
KINDS = {  # of data: what is said of it, and which process is lost
    "small": ({**USUAL, "validation": 0}, 1),
    "shards": ({**PHOTOGRAPHS, "validation": 0, "decode": "workers"}, 0),
    "stream": ({**PHOTOGRAPHS, "reading.stream": "true", "reading.epoch_images": 60}, 1),
}


def words(command: str, **options: object) -> list[str]:
    return [command, *(f"--{name}={value}" for name, value in options.items())]


def under_torchrun(arguments: list[str], lost: int) -> "subprocess.CompletedProcess[str]":
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "--monitor-interval=0.2", "--max-restarts=1", "-m", "tests.losing", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "LOST": str(lost)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE, timeout=600)


def weights_differ(one: Path, other: Path) -> float:
    first, second = (load_file(run / "student" / "model.safetensors") for run in (one, other))
    return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)


def epochs(run: Path) -> list[int]:
    """Of the student, as far as the log goes."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [one["epoch"] for one in records if one["stage"] == "student"]


def written(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Photographs: 60 to train on, as many as the small images are; a local folder stands for the hub."""
    if kind == "shards":
        return str(write_shards(folder / "data", 60, 8, 2, 25))
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)  # 5 s after each epoch
    monkeypatch.setattr("sskd.data.hub.quick_hub", lambda _: None)
    return f"hub:{write_streamable(folder, {'train': 30, 'test': 4})}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_process(
    kind: str, few: Path, teacher: Path, tmp_path: Path, sskd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun starts both again; lost for good, the same command goes on alone: to the weights of one process."""
    options, rank = KINDS[kind]
    data = str(few) if kind == "small" else written(kind, tmp_path, monkeypatch)
    if kind != "small":
        teacher = tmp_path / "teacher"
        taught = sskd(*words("teacher", data=data, model="cifar_resnet8", epochs=1, out=teacher, **options))
        assert taught.code == 0, taught
    alone, lost = tmp_path / "alone", tmp_path / "lost"

    def distil(out: Path) -> list[str]:
        given = {"teacher": teacher, "student": "cifar_resnet8", "data": data, "epochs": EPOCHS, **options}
        given |= {"options.head_epochs": 1, "checkpoint_every": 0, "batch_norm": "synchronised"}
        return words("distill", **given, cache=tmp_path / f"{out.name}-cache", out=out)

    ended = under_torchrun(distil(lost), rank)
    assert ended.returncode != 0 and not (lost / "result.json").exists()
    assert "Another of the 2 processes of this training was lost" in ended.stderr, ended.stderr
    assert epochs(lost) == [1, 2], ended.stderr  # 2: started again
    for out in (alone, lost):
        done = sskd(*distil(out))
        assert done.code == 0, done
    assert weights_differ(lost, alone) < 1e-6
    assert epochs(lost) == [*range(1, EPOCHS + 1)]
