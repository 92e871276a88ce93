"""What people come with: their photographs, big models of all kinds, plain checkpoints, too few images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision

from sskd.models.load import load_folder
from tests.conftest import TRAINING, Cli, write_images
from tests.photographs import write_oddities, write_photographs, write_unreadable

QUICK = (*TRAINING, "--epochs", "1")
HEAD = ("--options.head_epochs", "1")
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
Words = tuple[str | Path, ...]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of mixed sizes, some of odd modes, two unreadable."""
    folder = write_photographs(tmp_path_factory.mktemp("photographs"), {"train": 20, "test": 6})
    write_oddities(folder / "train" / "flower")
    write_unreadable(folder / "train" / "flower")
    return folder


def test_a_vision_transformer_teaches_a_mobile_net_on_photographs(sskd: Cli, photographs: Path, tmp_path: Path) -> None:
    data: Words = ("--data", photographs, "--size", "32")
    refused = sskd("teacher", *data, "--model", "test_vit", "--out", tmp_path / "no", *QUICK)
    assert refused.code == 2 and "2 of 42 images cannot be decoded" in refused.err
    assert not (tmp_path / "no" / "config.json").exists()
    data += ("--reading.unreadable", "skip")
    teacher = sskd("teacher", *data, "--model", "test_vit", "--out", tmp_path / "teacher", *QUICK)
    assert teacher.code == 0, teacher.err
    assert "Skipped 2 of 47 train images" in teacher.out
    for decode in ("once", "workers"):
        words = ("--student", "mobilenetv3_small_050", "--teacher", tmp_path / "teacher", "--decode", decode)
        done = sskd("distill", *data, *words, "--out", tmp_path / decode, *QUICK, *HEAD)
        assert done.code == 0, done.err
    student: Any = timm.create_model(f"local-dir:{tmp_path}/once/student", pretrained=True)
    assert student.num_classes == 2 and tuple(student.pretrained_cfg["input_size"]) == (3, 32, 32)
    config = json.loads((tmp_path / "workers" / "config.json").read_text())
    assert config["data"]["decode"] == "workers" and config["data"]["crops"]["kind"] == "resized"


def test_a_torchvision_network_teaches_one_of_ours(sskd: Cli, photographs: Path, tmp_path: Path) -> None:
    """Weights as torchvision's users have them: a state dict, of networks for other classes too."""
    data = ("--data", photographs, "--size", "32", "--reading.unreadable", "skip")
    torch.manual_seed(0)
    file = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), file)
    words: Words = ("--model", "torchvision:resnet18", "--init", file, "--out", tmp_path / "teacher", "--epochs", "0")
    checked = sskd("teacher", *data, *words, "--mean", str(IMAGENET[0]), "--std", str(IMAGENET[1]))
    assert checked.code == 0, checked.err
    assert "building, flower" in checked.out and "weights" in checked.out
    words = ("--student", "cifar_resnet8x4", "--teacher", tmp_path / "teacher", "--out", tmp_path / "run")
    assert sskd("distill", *data, *words, *QUICK, *HEAD).code == 0
    loaded = load_folder(tmp_path / "teacher" / "student")
    assert loaded.architecture == "torchvision:resnet18" and loaded.class_names == ("building", "flower")


def test_a_plain_checkpoint_is_asked_for_its_normalisation(sskd: Cli, few: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": timm.create_model("resnet10t", num_classes=3).state_dict()}, tmp_path / "plain.pth")
    words: Words = ("--data", few, "--student", "cifar_resnet8", "--out", tmp_path / "run")
    words += ("--teacher", tmp_path / "plain.pth", "--teacher_architecture", "resnet10t")
    asked = sskd("distill", *words, *QUICK, *HEAD)
    assert asked.code == 2 and "--teacher_mean" in asked.err
    done = sskd("distill", *words, "--teacher_mean", "[0.5,0.5,0.5]", "--teacher_std", "[0.2,0.2,0.2]", *QUICK, *HEAD)
    assert done.code == 0, done.err
    teacher = json.loads((tmp_path / "run" / "config.json").read_text())["teacher"]
    assert teacher["mean"] == [0.5] * 3 and teacher["normalisation_from"] == "the arguments"


def test_other_sizes_on_each_side(sskd: Cli, few: Path, tmp_path: Path) -> None:
    """A teacher for 32 pixels, colour, on grey images of 8."""
    data = write_images(tmp_path / "data", noise(9, 32, 32, 3), [0, 1, 2] * 3)
    assert sskd("teacher", "--data", data, "--model", "cifar_resnet8", "--out", tmp_path / "teacher", *QUICK).code == 0
    words = ("--data", few, "--student", "cifar_resnet8", "--teacher", tmp_path / "teacher", "--out", tmp_path / "run")
    assert sskd("distill", *words, *QUICK, *HEAD).code == 0
    teacher = json.loads((tmp_path / "run" / "config.json").read_text())["teacher"]
    assert teacher["size"] == 32 and len(teacher["mean"]) == 3


def test_fine_tuning_for_other_classes(sskd: Cli, few: Path, teacher: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", noise(20, 8, 8), list("abcd") * 5)
    words = ("--data", data, "--student", "cifar_resnet8", "--out", tmp_path / "no")
    before = sskd("distill", *words, "--teacher", teacher)
    assert before.code == 2 and "Fine-tune it on this data: sskd teacher --init" in before.err
    tuned = sskd("teacher", "--data", data, "--init", teacher, "--out", tmp_path / "tuned", *QUICK)
    assert tuned.code == 0, tuned.err
    network, old = load_folder(tmp_path / "tuned" / "student"), load_folder(teacher / "student")
    assert network.class_names == ("a", "b", "c", "d") and network.architecture == "cifar_resnet8"
    first = [one.get_parameter("backbone.conv1.weight") for one in (network, old)]
    assert 0 < (first[0] - first[1]).abs().max() < 0.2, "trained on, from the old weights"


@pytest.mark.parametrize(
    ("classes", "each"), [(2, 6), (1000, 2), (5, 1)], ids=["2 classes", "1,000 classes", "1 image in a class"]
)
def test_numbers_of_classes(classes: int, each: int, sskd: Cli, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", noise(classes * each, 8, 8), [i % classes for i in range(classes * each)])
    words: Words = ("--data", data, "--out")
    taught = sskd("teacher", *words, tmp_path / "teacher", "--model", "cifar_resnet8", *QUICK)
    assert taught.code == 0, taught.err
    words += (tmp_path / "run", "--student", "cifar_resnet8", "--teacher", tmp_path / "teacher")
    done = sskd("distill", *words, *QUICK, *HEAD, "--batch_size", "64")
    assert done.code == 0, done.err
    assert ("No validation split" in done.out) is (each < 20)
    assert load_folder(tmp_path / "run" / "student").class_names == tuple(map(str, range(classes)))


def test_three_images_in_all(sskd: Cli, tmp_path: Path) -> None:
    write_photographs(tmp_path / "data", {"": 2})
    (tmp_path / "data" / "flower" / "001.jpg").unlink()
    words: Words = ("--data", tmp_path / "data", "--size", "32", "--out")
    assert sskd("teacher", *words, tmp_path / "teacher", "--model", "cifar_resnet8", *QUICK).code == 0
    words += (tmp_path / "run", "--student", "cifar_resnet8", "--teacher", tmp_path / "teacher")
    done = sskd("distill", *words, *QUICK, *HEAD)
    assert done.code == 0, done.err
