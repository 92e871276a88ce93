"""Photographs of ImageNet's usual size from class folders, tar shards and a stream: trained on, stopped, continued."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.photographs import write_folders, write_shards
from sskd.cli.main import main
from tests.conftest import TRAINING, Cli
from tests.interruption import assert_equal, outcome, stop_after

SIZE = ("--size", "32", "--validation", "0", "--checkpoint_every", "0")
LENGTH = ("--epochs", "1", "--options.head_epochs", "1")
IMAGES, TESTS, CLASSES, BATCH = 12, 4, 2, 4
KINDS = ("folder", "shards", "stream")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """Each kind of data as words of a command line."""
    root = tmp_path_factory.mktemp("photographs")
    write_folders(root / "folder", IMAGES, TESTS, CLASSES)
    write_shards(root / "shards", IMAGES, TESTS, CLASSES, 5)
    found: dict[str, tuple[str, ...]] = {kind: ("--data", str(root / kind)) for kind in KINDS[:2]}
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    for split, rows in datasets.load_dataset(str(root / "folder"), cache_dir=str(root / "cache")).items():
        (root / "stream").mkdir(exist_ok=True)
        rows.cast_column("image", datasets.Image()).to_parquet(root / "stream" / f"{split}.parquet")
    stream = ("--reading.stream", "true", "--reading.epoch_images", str(IMAGES))
    return {**found, "stream": ("--data", f"hub:{root / 'stream'}", *stream)}


@pytest.fixture
def train(sskd: Cli, places: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command on one of the kinds, photographs decoded in each epoch; a checkpoint after every step."""
    monkeypatch.setattr("sskd.train.loop.INTERVAL", -1.0)
    monkeypatch.setattr("sskd.data.hub.quick_hub", lambda _: None)
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)  # 5 s after each epoch
    quick = [word if word != "20" else str(BATCH) for word in TRAINING]

    def run(command: str, kind: str, *words: str | Path) -> None:
        decode = () if kind == "stream" else ("--decode", "workers", "--workers", "0")
        done = sskd(command, *places[kind], *SIZE, *decode, *quick, *words)
        assert done.code == 0, done.err

    return run


@pytest.fixture(scope="module")
def taught(places: dict[str, tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One teacher for all kinds, which have the same classes."""
    out = tmp_path_factory.mktemp("taught") / "teacher"
    words = ("--model", "cifar_resnet8", "--out", str(out), "--epochs", "1", "--decode", "once")
    assert main(["teacher", *places["folder"], *SIZE, *TRAINING, *words]) == 0
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_in_the_middle_of_epochs(
    kind: str, train: Any, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the config, every write is a checkpoint or what ends a stage; it stops after several, and goes on."""
    words = ("--student", "cifar_resnet8", "--teacher", taught, *LENGTH)
    train("distill", kind, *words, "--out", tmp_path / "whole" / "run")
    run = tmp_path / "stopped" / "run"
    parts = []
    for writes in (4, 6):  # in the epoch of the head, in that of the student; each checkpoint but the first is two
        stop_after(monkeypatch, lambda: train("distill", kind, *words, "--out", run), writes)
        parts.append(_position(run))
    train("distill", kind, *words, "--out", run)
    assert parts == [("head", 0, 2), ("student", 0, 1)]
    assert_equal(outcome(run), outcome(tmp_path / "whole" / "run"))
    assert json.loads((run / "config.json").read_text())["data"]["train_images"] == IMAGES


def _position(run: Path) -> tuple[str, int, int]:
    """Stage, epoch and steps of it, as the checkpoint has them."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    return state["stage"], state["epoch"], state["part"]["steps"]
