"""Files that are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", " is not valid JSON"),
        ("[" * 100_000, " is not valid JSON"),
        ("\x00", " is not valid JSON"),
        ("[1]", ": expected names with values; got \\[1\\]"),
        ("null", ": expected names with values; got None"),
    ],
)
def test_damaged_json(content: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"result\.json{what}.*start anew with another --out"):
        files.read_json(path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_that_locks_no_files(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no other process: the training goes on, and says that nothing keeps others away."""

    def missing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", missing)
    said = list[str]()
    with files.alone_in(tmp_path / "run", said.append):
        assert not files.held(tmp_path / "run")
    assert said == [
        f"The file system of {tmp_path}/run cannot lock files ({os.strerror(number)}): see to it that no other process "
        "trains there."
    ]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run cannot be made: Not a directory\. Choose another --out"):
        files.make_folder(tmp_path / "file" / "run")


def test_lines_for_people_obey_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    files.say("runs/a\x1b[2Jb is new")
    assert capsys.readouterr().err == "sskd: runs/a\\x1b[2Jb is new\n"
