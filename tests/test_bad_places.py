"""A place, a disk, a log or a loss that goes wrong costs one clear message and nothing that was saved."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sskd.files import alone_in
from sskd.runs import Run
from tests.conftest import Cli
from tests.interruption import SHORT, assert_refused, stop_after


def test_out_is_a_file(distil: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(
        distil("--out", tmp_path / "file", *SHORT), "file exists and is not a run directory", "another --out"
    )
    assert_refused(
        distil("--out", tmp_path / "file" / "run", *SHORT), "cannot be made: Not a directory", "another --out"
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_out_is_no_possible_name(distil: Cli, tmp_path: Path) -> None:
    assert_refused(distil("--out", tmp_path / ("x" * 300), *SHORT), "cannot be looked into: File name too long")


def test_log_that_is_damaged(distil: Cli, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "run", "--method", "ce", "--epochs", "1")
    assert distil(*words).code == 0
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "log.jsonl").write_text("garbage\n")
    assert_refused(distil(*words), "log.jsonl, line 1 is damaged", "Restore it")


def test_a_message_of_several_lines_is_told_in_one(
    distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(Run, "log", broken)
    outcome = distil("--out", tmp_path / "run", *SHORT)
    assert outcome.err == "sskd: unexpected RuntimeError: first second. Repeat with --debug to see where.\n"


def test_out_with_a_null_byte(distil: Cli) -> None:
    assert_refused(distil("--out", "a\0b"), "cannot be made: embedded null byte")


def test_config_that_is_no_text(distil: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"epochs: \xa0\xff")
    assert_refused(distil("--config", tmp_path / "config.yaml"), "the config file is not text")


@pytest.mark.parametrize("change", [{"device": "cpu", "precision": "fp33"}, None])
def test_execution_that_is_damaged(
    change: object, distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, lambda: distil("--out", tmp_path / "run", *SHORT), 6)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "execution": change}))
    refused = distil("--out", tmp_path / "run", *SHORT)
    assert_refused(refused, "config.json", "execution", "Restore it, or start anew")


def test_log_that_lost_lines(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, lambda: distil("--out", tmp_path / "run", *SHORT), 8)
    (tmp_path / "run" / "log.jsonl").write_text("")
    refused = distil("--out", tmp_path / "run", *SHORT)
    assert_refused(refused, "log.jsonl holds 0 lines, but the checkpoint beside it was written at line", "Restore")


def test_two_processes_in_one_run(distil: Cli, tmp_path: Path) -> None:
    with alone_in(tmp_path / "run"):
        assert_refused(distil("--out", tmp_path / "run"), "Another process is training in", "choose another --out")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock"]
    assert distil("--out", tmp_path / "run", *SHORT).code == 0


def test_curves_that_cannot_be_written(distil: Cli, tmp_path: Path) -> None:
    done = distil("--out", tmp_path / "run", *SHORT)
    assert done.code == 0
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "tensorboard").write_text("in the way")
    again = distil("--out", tmp_path / "run", "--tensorboard", "true", *SHORT)
    assert again.code == 0
    assert "No TensorBoard curves: " in again.out


def test_out_is_a_folder_of_something_else(distil: Cli, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert_refused(distil("--out", tmp_path, *SHORT), "exists and is not a run directory", "remove it")


def test_out_is_a_run_of_another_config(distil: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert distil("--out", run, "--method", "ce", "--epochs", "1").code == 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    refused = distil("--out", run, "--method", "kd", "--epochs", "2")
    assert_refused(refused, "method: 'ce' there, 'kd' now", "training.epochs: 1 there, 2 now", "another --out")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_unwritable_place(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not bind the superuser, as whom tests may run."""
    opened = Path.open

    def denied(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    def read_only(self: Path, mode: str = "r", **keywords: Any) -> Any:
        return opened(self, mode, **keywords) if mode in ("r", "rb") else denied(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", denied)
        assert_refused(distil("--out", tmp_path / "run", *SHORT), "run cannot be made: Permission denied")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", read_only)
        refused = distil("--out", tmp_path / "run", *SHORT)
    assert_refused(refused, "config.json could not be written: Permission denied", "another --out")
    assert distil("--out", tmp_path / "run", *SHORT).code == 0


def full_at(call: int) -> Callable[[int], None]:
    """In place of os.fsync: the disk is full from the n-th call on."""
    fsync, calls = os.fsync, [0]

    def flushed(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] >= call:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    return flushed


def test_full_disk_at_every_write(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert distil("--out", tmp_path / "whole" / "run", *SHORT).code == 0
    weights = load_file(tmp_path / "whole" / "run" / "student" / "model.safetensors")
    place, finished, last = tmp_path / "full" / "run", False, 0
    for call in range(1, 40):
        shutil.rmtree(place.parent, ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full_at(call))
            refused = distil("--out", place, *SHORT)
        if finished := refused.code == 0:
            break
        assert_refused(refused, "could not be written: the disk is full. What was saved before is kept")
        if (place / "checkpoint.pt").exists():
            state = torch.load(place / "checkpoint.pt", weights_only=True)
            last = max(last, state["log_lines"])
        assert not list(place.parent.rglob("*.tmp"))
        assert distil("--out", place, *SHORT).code == 0
        again = load_file(place / "student" / "model.safetensors")
        assert again.keys() == weights.keys()
        assert all(torch.equal(again[key], weights[key]) for key in weights)
    assert finished
    assert (call, last) == (13, 3), "twelve files and lines are written"


def test_full_disk_while_timm_writes(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sskd.models.checkpoints.save_config_for_hf", full)
        assert_refused(distil("--out", tmp_path / "run", *SHORT), "could not be written: the disk is full")
    assert distil("--out", tmp_path / "run", *SHORT).code == 0


# losses


def test_loss_that_explodes_at_once(distil: Cli, tmp_path: Path) -> None:
    refused = distil("--out", tmp_path / "run", "--epochs", "3", "--method", "kd", "--optim.lr", "1e30")
    assert_refused(refused, "Loss term ", "kd", "became NaN or infinite in stage 'student' at step 1", "--optim.lr")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    assert not (tmp_path / "run" / "student").exists()


def test_loss_that_explodes_later(distil: Cli, tmp_path: Path) -> None:
    """At half of the epochs the rate rises to 1e30: the checkpoint before stays."""
    run = tmp_path / "run"
    later = ("--optim.lr", "0.01", "--optim.milestones", "[0.5]", "--optim.gamma", "1e32")
    refused = distil("--out", run, "--epochs", "4", "--method", "kd", *later)
    assert_refused(refused, "became NaN or infinite in stage 'student' at step 7", "its last good checkpoint is kept")
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    assert (state["epoch"], state["log_lines"]) == (2, 2)
    assert all(value.isfinite().all() for value in state["modules"]["student"].values())
    assert len((run / "log.jsonl").read_text().splitlines()) == 2
    again = distil("--out", run, "--epochs", "4", "--method", "kd", *later)
    assert again.err == refused.err
