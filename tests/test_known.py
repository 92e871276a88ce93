"""What is found out about data once: photographs are decoded in trial before the first run alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sskd.data import load_source
from sskd.data.known import known
from sskd.data.pictures import Pictures
from sskd.data.splits import cut
from sskd.errors import UserError
from sskd.reading import Reading
from tests.photographs import write_photographs, write_unreadable

Trial = Callable[..., list[str]]
"""Tries the images of a run; which of them were decoded, as long as nothing was refused."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "photographs", {"train": 8, "test": 2})


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are decoded."""
    opened: list[str] = []
    decode = Pictures.open

    def watched(self: Pictures, position: int) -> object:
        opened.append(Path(self.reader.name(int(self.place[position]))).name)
        return decode(self, position)

    monkeypatch.setattr(Pictures, "open", watched)
    return opened


@pytest.fixture
def trial(folder: Path, place: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.setattr("sskd.data.pictures.MANY", 4)

    def run(seed: int = 0, fraction: float = 1.0) -> list[str]:
        opened.clear()
        cut(load_source(str(folder)), 0.25, fraction, seed).refuse_unreadable()
        return opened

    return run


def test_all_once_then_none(trial: Trial) -> None:
    assert len(trial()) == 20
    assert trial() == [] == trial(seed=1) == trial(fraction=0.5), "however the images are cut"


def test_another_image_or_label(trial: Trial, folder: Path) -> None:
    trial()
    file = folder / "train" / "flower" / "000.jpg"
    file.write_bytes(file.read_bytes() + b"\0")
    assert len(trial()) == 16, "the training images; the test images are as they were"
    file.rename(folder / "train" / "building" / "100.jpg")
    assert len(trial()) == 16


def test_what_was_refused_is_tried_again(trial: Trial, opened: list[str], folder: Path) -> None:
    write_unreadable(folder / "train" / "flower")
    refusal = r"2 of 18 images cannot be decoded: .*text\.jpg cannot be decoded: .*truncated\.jpg cannot be decoded"
    for decoded in (18, 2):
        with pytest.raises(UserError, match=refusal):
            trial()
        assert len(opened) == decoded
    source = load_source(str(folder), Reading(unreadable="skip"))
    assert len(source.train) == 16 and "Skipped 2 of 18 train images" in source.notes[-1]


def test_few_images_leave_nothing_behind(folder: Path, place: Path) -> None:
    cut(load_source(str(folder)), 0.25, 1.0, 0).refuse_unreadable()
    assert not place.exists()


def test_known(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def find_out() -> list[int]:
        asked.append(1)
        return asked.copy()

    assert known("kind", "a", find_out) == [1] == known("kind", "a", find_out)
    assert known("kind", "b", find_out) == [1, 1] and known("other", "a", find_out) == [1, 1, 1]
    for file in place.iterdir():
        file.write_text("{")
    assert len(known("kind", "a", find_out)) == 4 == len(known("kind", "a", find_out))
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSKD_CACHE", str(tmp_path / "file"))
    assert len(known("kind", "a", find_out)) == 5, "where nothing can be written, it is found out anew"
    assert len(known("kind", "a", find_out)) == 6
