"""Data sets by their hub id. No test reaches the hub: a local folder stands for a data set."""

import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from sskd.data import load_source
from sskd.data.pictures import Pictures
from sskd.data.reading import Reading
from sskd.errors import UserError
from sskd.models.build import build
from tests.photographs import CLASSES, write_photographs

datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sskd.data.hub.quick_hub", lambda _: None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_columns_and_splits_are_guessed(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs", {"train": 4, "test": 2})
    source = load_source(f"hub:{folder}")
    assert source.class_names == CLASSES and [len(source.train), len(source.test)] == [8, 4]
    assert "images in column image, labels in label; splits train, test" in source.notes[0]
    assert isinstance(source.train, Pictures)
    by_folder = load_source(f"folder:{folder}").train
    assert isinstance(by_folder, Pictures)
    assert source.train.stored(16).pixels.equal(by_folder.stored(16).pixels)


def test_names_that_are_not_there(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs", {"train": 4, "test": 2})
    with pytest.raises(UserError, match=r"no column of .* named 'imag'.*Did you mean 'image'"):
        load_source(f"hub:{folder}", Reading(image="imag"))
    with pytest.raises(UserError, match=r"no split of .* named 'trains'.*Did you mean 'train'"):
        load_source(f"hub:{folder}", Reading(train="trains"))
    with pytest.raises(UserError, match="say hub:OWNER/NAME"):
        load_source("hub")


def test_without_a_network_the_hub_says_so_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"does not answer .*--local-dir FOLDER; then name local-dir:FOLDER"):
        build("hf-hub:someone/something", 3, 3)
    assert time.monotonic() - began < 10
