"""Data sets by name and place, and the real CIFAR-100."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sskd.data import SOURCES, digits, load_source
from sskd.data.images import channel_statistics
from sskd.data.source import Source
from sskd.data.subsets import validation_split
from sskd.errors import UserError
from sskd.reading import Reading
from tests.conftest import in_memory
from tests.parquet import CIFAR100, colours, features, write, write_both

# families by name and place


def test_digits() -> None:
    source = load_source("digits")
    assert (len(source.train), len(source.test)) == (1000, 797)
    assert in_memory(source.train).pixels.shape == (1000, 1, 32, 32)
    assert in_memory(source.train).pixels.dtype == torch.uint8
    assert source.train.labels.dtype == torch.int64
    assert source.class_names == tuple("0123456789")
    together = source.train.labels.bincount() + source.test.labels.bincount()
    assert ((source.test.labels.bincount() - together * 797 / 1797).abs() < 1).all()
    assert (int(in_memory(source.train).pixels.min()), int(in_memory(source.train).pixels.max())) == (0, 255)
    assert (source.mean, source.std) == channel_statistics(in_memory(source.train).pixels)
    scaled = in_memory(source.train).pixels.double() / 255
    assert source.mean[0] == pytest.approx(scaled.mean().item())
    assert source.std[0] == pytest.approx(scaled.std(correction=0).item())
    assert load_source("digits").train.fingerprint() == source.train.fingerprint()
    # the data set itself: a change here makes every number measured on it incomparable
    assert source.train.fingerprint().startswith("b1b370d144e8b823")


def test_digits_are_upsampled_bilinearly() -> None:
    """Against NumPy's one-dimensional interpolation between pixel centres, first along rows, then columns."""
    raw = load_digits()
    index, _ = validation_split(torch.from_numpy(raw.target), 797, digits.SPLIT_SEED, "0123456789")
    train = in_memory(load_source("digits").train)
    centres = (np.arange(32) + 0.5) / 4 - 0.5
    for position in (0, 500, 999):
        image = raw.images[index[position]]
        wide = np.stack([np.interp(centres, np.arange(8), row) for row in image])
        expected = np.stack([np.interp(centres, np.arange(8), column) for column in wide.T], axis=1)
        assert np.abs(train.pixels[position, 0].numpy() - expected * 255 / 16).max() <= 0.5 + 1e-9
        assert train.labels[position] == raw.target[index[position]]


def test_load_source_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_both(tmp_path / "tiny")
    by_folder, by_family = load_source(str(folder)), load_source(f"parquet:{folder}")
    assert by_folder.name == by_family.name == "tiny"
    assert by_folder.train.fingerprint() == by_family.train.fingerprint()
    monkeypatch.chdir(folder)
    assert load_source(".").name == "tiny"
    published = {"cifar10", "cifar100", "stl10", "svhn", "imagenet"}
    assert set(SOURCES) == {"digits", "folder", "parquet", "shards", "hub"} | published


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", r"There is no data set named 'digit', and no folder digit here\. Did you mean 'digits'\?"),
        (
            "waffles:x/y",
            r"There is no data set named 'waffles', and no folder waffles:x/y here\. Known: cifar10, ",
        ),
        ("digits:somewhere", r"digits comes with scikit-learn and takes no path, got 'somewhere'"),
        ("parquet", r"needs a folder: say parquet:PATH"),
        ("no/such/folder", r"no folder no/such/folder; expected a folder of class folders, of parquet files or of tar"),
        ("parquet:nowhere", r"nowhere does not exist"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_source(spec)


def test_class_without_training_images(tmp_path: Path) -> None:
    names = features(image=None, label=["ant", "bee", "cat", "dog"])
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", {"image": colours(0), "label": [0, 0, 2, 2]}, names)
    with pytest.raises(UserError, match=r"without training images: 'bee' \(0 images\), 'dog' \(0 images\)"):
        load_source(str(tmp_path))


def test_one_class_only(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", {"image": colours(0), "label": [0] * 4})
    with pytest.raises(UserError, match=r"has 1 class \(0\); a classifier needs at least 2"):
        load_source(str(tmp_path))


# the real thing


@pytest.fixture(scope="module")
def cifar100() -> Source:
    if not CIFAR100.is_dir():
        pytest.skip(f"CIFAR-100 is not at {CIFAR100}")
    return load_source(str(CIFAR100))


def test_cifar100(cifar100: Source) -> None:
    assert cifar100.name == "cifar100"
    assert in_memory(cifar100.train).pixels.shape == (50_000, 3, 32, 32)
    assert in_memory(cifar100.test).pixels.shape == (10_000, 3, 32, 32)
    assert len(cifar100.class_names) == 100
    assert cifar100.class_names[0] == "apple"
    assert list(cifar100.class_names) == sorted(cifar100.class_names)
    assert (cifar100.train.labels.bincount() == 500).all()
    assert (cifar100.test.labels.bincount() == 100).all()


def test_cifar100_statistics(cifar100: Source) -> None:
    assert cifar100.mean == (0.5071, 0.4866, 0.4409)
    assert cifar100.std == (0.2675, 0.2565, 0.2761)
    mean, std = channel_statistics(in_memory(cifar100.train).pixels)
    assert mean == pytest.approx(cifar100.mean, abs=0.002)
    assert std == pytest.approx(cifar100.std, abs=0.002)


def test_cifar100_validation(cifar100: Source) -> None:
    train, validation = validation_split(cifar100.train.labels, 5000, 0, cifar100.class_names)
    assert (len(train), len(validation)) == (45_000, 5000)
    assert (cifar100.train.labels[validation].bincount() == 50).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test_share": 7}, r"reading\.test_share is a share between 0 and 1; got 7"),
        ({"max_pixels": 0}, r"reading\.max_pixels must be at least 1; got 0"),
        ({"max_expansion": 0.5}, r"reading\.max_expansion must be at least 1; got 0\.5"),
        ({"epoch_images": 5}, r"reading\.epoch_images says how long an epoch of a stream is"),
        ({"label": ""}, r"reading\.label is empty"),
    ],
)
def test_readings_that_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Reading(**given)


@pytest.mark.parametrize(("name", "value"), [("stream", True), ("label", "x"), ("train", "x"), ("test", "x")])
def test_readings_that_mean_nothing_to_the_data(name: str, value: Any, tmp_path: Path) -> None:
    """They would be ignored in silence."""
    with pytest.raises(UserError, match=rf"--reading\.{name} is for .*hub; digits is read as digits\. Leave it out"):
        load_source("digits", Reading(**{name: value}))
    if name in ("stream", "label"):
        (tmp_path / "cat").mkdir()
        with pytest.raises(UserError, match=rf"--reading\.{name} is for .*is read as folder"):
            load_source(str(tmp_path), Reading(**{name: value}))


def test_names_that_are_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "data.zip").write_bytes(b"")
    for spec, message in {
        "photo": r"no data set named 'photo', and no folder photo here\. Did you mean 'photos'\?",
        "./photo": r"There is no folder \./photo; .*Did you mean 'photos'\?",
        f"{tmp_path}/photo": r"There is no folder /.*/photo; .*Did you mean '/.*/photos'\?",
        "data.zip": r"data\.zip is a file; expected a folder",
        "": r"data is empty\. Name a data set",
        "photos": r"photos holds no images, no parquet files and no tar shards",
    }.items():
        with pytest.raises(UserError, match=message):
            load_source(spec)
