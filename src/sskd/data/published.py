"""Data sets of torchvision, downloaded where that can be: cifar10, cifar100, stl10, svhn, imagenet."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets

from sskd.data.encoded import PHOTOGRAPHS, Encoded, Published, Split, settle
from sskd.data.folder import Files
from sskd.data.images import Images
from sskd.data.source import Source
from sskd.errors import UserError
from sskd.reading import Reading

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100: Statistics = ((0.5071, 0.4866, 0.4409), (0.2675, 0.2565, 0.2761))
STL10: Statistics = ((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713))
SVHN: Statistics = ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))


def place() -> str:
    """Where data sets are kept: $SSKD_DATA, or a folder in the user's cache."""
    return os.environ.get("SSKD_DATA") or str(Path.home() / ".cache" / "sskd" / "data")


def _made(make: Callable[..., Any], root: str, name: str, **which: Any) -> Any:
    """The data set, from the folder or downloaded into it."""
    try:
        return make(root, download=False, **which)
    except RuntimeError:
        pass  # not there yet
    try:
        return make(root, download=True, **which)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{name} is not in {root} and cannot be downloaded ({error}). Put the files that torchvision's "
            f"{make.__name__} expects there on a machine with a network, or say --data {name}:FOLDER."
        ) from error


def _arrays(
    make: Callable[..., Any],
    name: str,
    statistics: Statistics,
    splits: tuple[dict[str, Any], dict[str, Any]],
    path: str | None,
    reading: Reading,
) -> Source:
    root = path or place()
    train, test = (_made(make, root, name, **which) for which in splits)
    names = getattr(train, "classes", None) or [str(digit) for digit in range(10)]
    mean, std = statistics
    return Source(name, tuple(names), _images(train), _images(test), mean, std, published=True)


def _images(dataset: Any) -> Images:
    pixels, labels = np.asarray(dataset.data), getattr(dataset, "targets", None)
    labels = dataset.labels if labels is None else labels
    if pixels.shape[-1] == 3:  # CIFAR has the channels last
        pixels = pixels.transpose(0, 3, 1, 2)
    return Images(torch.from_numpy(np.ascontiguousarray(pixels)), torch.as_tensor(labels, dtype=torch.int64))


def _imagenet(path: str | None, reading: Reading) -> Source:
    """ILSVRC2012, from the archives as published or already unpacked; torchvision does not download it."""
    root = path or place()
    train, test = (_made_imagenet(root, split) for split in ("train", "val"))
    names = tuple(train.wnids)
    splits = [
        Split(Files([file for file, _ in one.samples]), torch.tensor([label for _, label in one.samples]))
        for one in (train, test)
    ]
    published = Published((3, 0, 0), *PHOTOGRAPHS[3])
    return settle(Encoded("imagenet", names, splits[0], splits[1], published=published), reading)


def _made_imagenet(root: str, split: str) -> Any:
    try:
        return datasets.ImageNet(root, split)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"ImageNet's {split} split is not in {root} ({' '.join(str(error).split())}). Put there "
            "ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, or say --data "
            "folder:PATH for class folders."
        ) from error


_TRAIN_FLAG = ({"train": True}, {"train": False})
_SPLIT_NAME = ({"split": "train"}, {"split": "test"})
cifar10 = partial(_arrays, datasets.CIFAR10, "cifar10", CIFAR10, _TRAIN_FLAG)
cifar100 = partial(_arrays, datasets.CIFAR100, "cifar100", CIFAR100, _TRAIN_FLAG)
stl10 = partial(_arrays, datasets.STL10, "stl10", STL10, _SPLIT_NAME)
svhn = partial(_arrays, datasets.SVHN, "svhn", SVHN, _SPLIT_NAME)
imagenet = _imagenet
