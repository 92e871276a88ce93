"""Checkpoints are taken whole or not at all, wherever a bit of them is flipped; of two the older is taken then."""

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sskd.content_hash import content_hash
from sskd.errors import UserError
from sskd.train.checkpoint import CheckpointFiles, DamagedCheckpointError, load_checkpoint, save_checkpoint
from tests.interruption import checkpoint_at, flipped

RUN = {"arguments.training.seed": 0, "stages": [{"name": "s"}]}


def two(folder: Path) -> CheckpointFiles:
    files = CheckpointFiles(folder)
    for epoch in (1, 2):
        files.save(checkpoint_at(epoch), 10 * epoch, RUN)
    return files


def test_two_generations(tmp_path: Path) -> None:
    files = two(tmp_path)
    checkpoint, note = files.load(RUN)
    assert checkpoint is not None and note == ""
    assert (checkpoint["epoch"], checkpoint["log_lines"]) == (2, 20)
    assert load_checkpoint(files.previous)["epoch"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_a_flipped_bit_anywhere(tmp_path: Path) -> None:
    """The checkpoint is the one that was written, or the one before it."""
    files, generator = two(tmp_path), random.Random(0)
    last, previous = files.last.read_bytes(), files.previous.read_bytes()
    expected = {epoch: content_hash(checkpoint_at_lines(files, epoch)) for epoch in (1, 2)}
    taken = {1: 0, 2: 0}
    for i in range(200):
        at = i * len(last) // 200 + generator.randrange(len(last) // 200)
        files.last.write_bytes(flipped(last, at, 1 << generator.randrange(8)))
        files.previous.write_bytes(previous)
        checkpoint, note = files.load(RUN)
        assert checkpoint is not None
        epoch = checkpoint["epoch"]
        taken[epoch] += 1
        assert content_hash(checkpoint) == expected[epoch], at
        assert (epoch == 2) == (note == "")
        assert epoch == 2 or ("checkpoint.pt" in note and "checkpoint.previous.pt" in note and "\n" not in note)
        assert epoch == 2 or (files.last.read_bytes() == previous and not files.previous.exists())
    assert min(taken.values()) > 20, "padding does not matter, tensors do"


def checkpoint_at_lines(files: CheckpointFiles, epoch: int) -> Any:
    return load_checkpoint(files.last if epoch == 2 else files.previous)


def test_tensors_that_were_exchanged(tmp_path: Path) -> None:
    """By someone who writes a good archive: no checksum of the archive tells it, the hash does."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {**checkpoint_at(1), "log_lines": 1})
    content = torch.load(path, weights_only=True)
    content["modules"]["student"]["weight"][0] = 7
    torch.save(content, path)
    with pytest.raises(DamagedCheckpointError, match=r"checkpoint\.pt is damaged: it does not hold what was written"):
        load_checkpoint(path)


def test_files_of_the_first_releases(tmp_path: Path) -> None:
    """They have no hash; the archive's checksums are looked at, which torch does not do."""
    files, content = CheckpointFiles(tmp_path), {**checkpoint_at(3), "log_lines": 1}
    torch.save(content, files.last)
    checkpoint, note = files.load(RUN)
    assert checkpoint is not None and (checkpoint["epoch"], note) == (3, "")
    whole = files.last.read_bytes()
    values = checkpoint_at(3)["modules"]["student"]["weight"].numpy().tobytes()
    files.last.write_bytes(flipped(whole, whole.index(values)))
    assert torch.load(files.last, weights_only=True)["epoch"] == 3, "torch says nothing"
    with pytest.raises(
        UserError, match=r"checkpoint\.pt cannot be read .*Delete .*checkpoint\.pt to start the run anew"
    ):
        files.load(RUN)


@pytest.mark.parametrize(
    "content",
    [
        {"log_lines": nn.Linear(1, 1)},
        {"weights": torch.zeros(2)},
        [1],
        {**checkpoint_at(1), "log_lines": "many"},
        {**checkpoint_at(1), "log_lines": 1, "modules": torch.zeros(2)},
        {**checkpoint_at(1), "log_lines": 1, "part": {"steps": 1}},
    ],
)
def test_what_is_no_checkpoint(content: Any, tmp_path: Path) -> None:
    """In one line, and without torch's advice to run the code in the file."""
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    with pytest.raises(DamagedCheckpointError, match=r"checkpoint\.pt cannot be read \(") as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text and "weights_only" not in text and "succeed" not in text


def test_a_checkpoint_of_another_run(tmp_path: Path) -> None:
    files = two(tmp_path)
    with pytest.raises(
        UserError, match=r"of another run .*seed: 0 there, 1 now.*without any the run goes on from check"
    ):
        files.load({**RUN, "arguments.training.seed": 1})
    assert load_checkpoint(files.last)["epoch"] == 2, "nothing was changed"


def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    files = two(tmp_path)
    files.last.rename(files.previous)
    checkpoint, note = files.load(RUN)
    assert checkpoint is not None and checkpoint["epoch"] == 2
    assert "is missing" in note and files.last.exists()


def test_a_folder_in_the_place_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(UserError, match=r"checkpoint\.pt cannot be read \(Is a directory\)"):
        CheckpointFiles(tmp_path).load(RUN)


def test_a_full_disk_leaves_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = two(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="the disk is full"):
            files.save(checkpoint_at(3), 30, RUN)
    assert [load_checkpoint(path)["epoch"] for path in (files.previous, files.last)] == [1, 2]
    assert len([*tmp_path.iterdir()]) == 2


def test_hashes_tell_contents_apart() -> None:
    values = torch.arange(6.0).view(2, 3)
    same = [{"a": values, "b": (1, None)}, {"b": (1, None), "a": values.t().contiguous().t()}]
    assert len({content_hash(one) for one in same}) == 1
    others = [
        {"a": values.double(), "b": (1, None)},
        {"a": values.view(3, 2), "b": (1, None)},
        {"a": values, "b": [1, None]},
        {"a": values, "b": (1.0, None)},
        {"a": values, "b": (True, None)},
        {"a": values, 1: (1, None)},
        {"a": values, "1": (1, None)},
        {"a": values, "b": ((1,), None)},
        {"a": torch.tensor(0), "b": (1, None)},
        {"a": torch.zeros(0), "b": (1, None)},
        {"a": float("nan"), "b": (1, None)},
    ]
    assert len({content_hash(one) for one in others}) == len(others)
    assert content_hash(float("nan")) == content_hash(float("nan"))
