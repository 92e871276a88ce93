"""Files that are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
import torch

from sskd import files
from sskd.errors import UserError


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"good": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[broken], full)
    with pytest.raises(UserError, match=r"result\.json could not be written: the disk is full\. What was saved"):
        files.write_json(path, {"better": 2})
    assert files.read_json(path) == {"good": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_a_write_that_is_killed_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"good": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            files.write_json(path, {"better": 2})
    assert files.read_json(path) == {"good": 1}
    left = [file for file in tmp_path.iterdir() if file != path]
    assert [files.is_temporary(file) for file in left] == [True]
    files.write_json(path, {"better": 2})
    assert files.read_json(path) == {"better": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        calls.append(f"fsync of {os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def named(self: Path, target: Path) -> Path:
        calls.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", named)
    files.write_atomic(tmp_path / "file", b"1234567")
    assert calls == ["fsync of 7 bytes", "replace"]


def test_an_error_without_a_number_is_still_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(*_: object) -> None:
        raise OSError("the tape is out")

    monkeypatch.setattr(os, "fsync", odd)
    with pytest.raises(UserError, match="could not be written: the tape is out"):
        files.write_atomic(tmp_path / "file", b"")


@pytest.mark.parametrize("content", ["{", "[1]", "\x00"])
def test_damaged_json(content: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"result\.json is not valid JSON .*start anew with another --out"):
        files.read_json(path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run cannot be made: Not a directory\. Choose another --out"):
        files.make_folder(tmp_path / "file" / "run")


def test_an_unreadable_checkpoint_is_told_in_one_line(tmp_path: Path) -> None:
    torch.save({"log_lines": torch.nn.Linear(1, 1)}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError) as caught:
        files.load_checkpoint(tmp_path / "checkpoint.pt", "log_lines")
    assert "checkpoint.pt cannot be read (" in str(caught.value)
    assert "\n" not in str(caught.value)
