"""Data sets by their hub id. No test reaches the hub: a local folder stands for a data set."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from sskd.data import load_source
from sskd.data.crops import Resized
from sskd.data.in_memory import in_memory
from sskd.data.pictures import Pictures
from sskd.data.prepare import make_feed
from sskd.data.streams import Stream
from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.parts import CrossEntropy
from sskd.methods.plan import Optim, Pair, Plan, Stage
from sskd.models.build import build
from sskd.reading import Reading
from sskd.views.pretext import Plain
from tests.conftest import TRAINING, Cli
from tests.conftest import in_memory as decoded
from tests.photographs import CLASSES, write_photographs, write_streamable

datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sskd.data.hub.quick_hub", lambda _: None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)  # 5 s after each epoch


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


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return write_streamable(tmp_path, {"train": 12, "test": 4})


def test_a_stream_depends_on_its_address_alone(stored: Path) -> None:
    reading = Reading(stream=True, epoch_images=24)
    source = load_source(f"hub:{stored}", reading)
    assert isinstance(source.train, Stream) and len(source.train) == 24 and source.class_names == CLASSES
    feed = make_feed(source.train, Resized(16), torch.device("cpu"), 2)
    whole = [cut for cut, _ in feed.epoch(5, 2, (0, "a", 0))]
    assert len(whole) == feed.steps(5) == 4 and whole[0].pixels.shape == (5, 2, 3, 16, 16)
    assert all((cut.index == -1).all() for cut in whole)
    labels = torch.cat([cut.labels for cut in whole])
    assert 5 < int(labels.sum()) < 15 and (labels[1:] != labels[:-1]).any(), "shuffled"
    rest = [cut for cut, _ in feed.epoch(5, 2, (0, "a", 0), first=2)]
    assert all(torch.equal(one.pixels, two.pixels) for one, two in zip(whole[2:], rest, strict=True))
    assert all(torch.equal(one.labels, two.labels) for one, two in zip(whole[2:], rest, strict=True))
    other = next(iter(feed.epoch(5, 2, (0, "a", 1))))[0]
    assert not torch.equal(other.pixels, whole[0].pixels)
    tests = make_feed(source.test, Resized(16), torch.device("cpu"), 2)
    assert sum(len(cut.labels) for cut in tests.whole(3)) == 8
    short = load_source(f"hub:{stored}", Reading(stream=True, epoch_images=30)).train
    with pytest.raises(UserError, match=r"ended after 20 images; 30 were promised.*--reading\.epoch_images"):
        list(make_feed(short, Resized(16), torch.device("cpu"), 2).epoch(10, 1, (0,)))


class Remembers(CrossEntropy):
    needs_index = True


def remembering(pair: Pair, *, epochs: int, optim: Optim) -> Plan:
    return Plan((Stage("student", {"ce": (1.0, Remembers())}, ("student",), epochs, optim),), Plain())


def test_methods_on_a_stream(stored: Path, sskd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data: tuple[str, ...] = ("--data", f"hub:{stored}", "--reading.stream", "true", "--reading.epoch_images", "24")
    data += ("--size", "32", "--epochs", "1")
    taught = sskd("teacher", *data, "--model", "cifar_resnet8", "--out", tmp_path / "teacher", *TRAINING)
    assert taught.code == 0, taught.err
    assert "Read as a stream" in taught.out and "No validation split can be cut off a stream" in taught.out
    words = ("--student", "cifar_resnet8", "--teacher", tmp_path / "teacher", "--out", tmp_path / "run")
    done = sskd("distill", *data, *words, "--options.head_epochs", "1", *TRAINING)
    assert done.code == 0, done.err
    monkeypatch.setenv("COLUMNS", "200")
    checked = sskd("check", *data, "--student", "cifar_resnet8", "--method", "ce", *TRAINING)
    assert checked.code == 0 and "Nobody says how many images the test stream has" in checked.out, checked
    assert "not known" in checked.out
    refused = sskd("distill", *data, *words[:-1], tmp_path / "no", "--fraction", "0.5", *TRAINING)
    assert refused.code == 2 and "--fraction 0.5 needs images that can be asked for by number" in refused.err
    monkeypatch.setitem(METHODS, "memory", remembering)
    refused = sskd("distill", *data, *words[:-1], tmp_path / "no", "--method", "memory", *TRAINING)
    assert refused.code == 2 and "The method memory (its term ce) remembers each training image" in refused.err


def handed(count: int = 12) -> Any:
    rows = {
        "image": [Image.new("RGB", (8, 8), (20 * i, 0, 0)) for i in range(count)],
        "label": [i % 2 for i in range(count)],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.parametrize("form", ["torch", "numpy", None])
def test_a_data_set_in_any_format(form: str | None) -> None:
    rows = handed().with_format(form)
    _, source = in_memory({"train": rows, "test": handed(4)}, Reading())
    assert source.class_names == ("a", "b") and source.train.labels.tolist() == [0, 1] * 6
    assert decoded(source.train).pixels[:, 0, 0, 0].tolist() == [20 * i for i in range(12)]
    assert rows.format["type"] == form, "the user's own stays as it is"


def test_a_stream_that_is_handed_over_is_refused() -> None:
    stream = handed().to_iterable_dataset()
    for data in (stream, {"train": handed(), "test": stream}):
        with pytest.raises(UserError, match=r"is a datasets\.IterableDataset, a stream .*Reading\(stream=True\)"):
            in_memory(data, Reading())
