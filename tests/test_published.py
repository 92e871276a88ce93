"""torchvision's data sets, made by stand-ins: no test downloads."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sskd.data import published
from sskd.data.images import Images
from sskd.errors import UserError
from sskd.reading import Reading

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), np.uint8)


def maker(layout: str, calls: list[dict[str, Any]]) -> Any:
    def make(root: str, download: bool, **which: Any) -> Any:
        calls.append({"root": root, "download": download, **which})
        if not download:
            raise RuntimeError("Dataset not found or corrupted.")
        if layout == "last":  # as CIFAR: channels last, targets
            return SimpleNamespace(data=PIXELS, targets=[0, 1, 0, 1], classes=["ant", "bee"])
        return SimpleNamespace(data=PIXELS.transpose(0, 3, 1, 2), labels=np.array([0, 1, 0, 1]))  # as SVHN

    return make


@pytest.mark.parametrize("layout", ["last", "first"])
def test_arrays(layout: str, tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []
    splits = ({"train": True}, {"train": False})
    source = published._arrays(maker(layout, calls), "bugs", published.CIFAR10, splits, str(tmp_path), Reading())
    assert [call["download"] for call in calls] == [False, True, False, True], "downloaded only where it is not there"
    assert isinstance(source.train, Images)
    assert torch.equal(source.train.pixels, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert source.train.labels.tolist() == [0, 1, 0, 1]
    assert (source.mean, source.std) == published.CIFAR10 and source.published
    assert source.class_names[:2] == (("ant", "bee") if layout == "last" else ("0", "1"))


def test_no_network(tmp_path: Path) -> None:
    def make(root: str, download: bool, **_: Any) -> Any:
        raise RuntimeError("Dataset not found") if not download else OSError("no route")

    with pytest.raises(UserError, match=r"bugs is not in .* and cannot be downloaded \(no route\).*--data bugs:FOLDER"):
        published._arrays(make, "bugs", published.CIFAR10, ({}, {}), str(tmp_path), Reading())


def test_imagenet_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ImageNet's train split is not in .*ILSVRC2012_img_train\.tar.*folder:PATH"):
        published.imagenet(str(tmp_path), Reading())
