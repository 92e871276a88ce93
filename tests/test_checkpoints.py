"""Networks on disk: what others have published is read without running code; what we write, timm reads."""

import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.models.checkpoints import load_strictly, read_containers
from sskd.models.load import Brought, Facts, load_network
from sskd.models.network import Network, create_network
from sskd.models.normalisation import Normalisation

NAMES = ("ant", "bee", "cat")
SCALE = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "here")
State = dict[str, Tensor]


def make(name: str = "cifar_resnet8", channels: int = 3, seed: int = 0, classes: tuple[str, ...] = NAMES) -> Network:
    """A network whose weights and statistics are not those of a fresh one."""
    torch.manual_seed(seed)
    scale = Normalisation(SCALE.mean[:channels], SCALE.std[:channels], "here")
    network = create_network(name, classes, (channels, 32, 32), scale)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias)
            module.running_mean = torch.randn(module.num_features) / 10
            module.running_var = torch.rand(module.num_features) + 0.5
    return network.eval()


def load(path: Path, name: str | None = "cifar_resnet8", classes: tuple[str, ...] = NAMES) -> Network:
    return load_network(Brought(str(path), name), Facts(classes, 3, SCALE)).eval()


@torch.no_grad()
def logits(network: nn.Module, channels: int = 3) -> Tensor:
    images = torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    value: Tensor = network(images)
    return value


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


HEAD = {"proj_head.0.weight": torch.zeros(4, 4), "proj_head.2.bias": torch.zeros(4)}

# how published files wrap a state dict
LAYOUTS: dict[str, Callable[[State], Any]] = {
    "state_dict": lambda state: {"state_dict": state},
    "model": lambda state: {"model": state},
    "bare": lambda state: state,
    "module.": lambda state: {"state_dict": prefixed(state, "module.")},
    "backbone.": lambda state: prefixed(state, "backbone."),
    "module.backbone.": lambda state: {"model": prefixed(state, "module.backbone.")},
    "teacher and head": lambda state: {"state_dict": {**prefixed(state, "backbone."), **HEAD}},
    "parallel teacher and head": lambda state: prefixed({**prefixed(state, "backbone."), **HEAD}, "module."),
    "with what trained it": lambda state: {
        "opt": argparse.Namespace(arch="resnet8", lr=0.05, milestones=[150, 180], device=None),
        "epoch": 240,
        "best_acc": np.float64(72.5),
        "accuracy": np.float32(0.725),
        "correct": np.int64(7),
        "history": np.arange(3.0),
        "optimizer": torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1, momentum=0.9).state_dict(),
        "model": state,
    },
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts(layout: str, zipped: bool, tmp_path: Path) -> None:
    network, path = make(), tmp_path / "published.pth"
    torch.save(LAYOUTS[layout](network.backbone.state_dict()), path, _use_new_zipfile_serialization=zipped)
    loaded = load(path, "resnet8")
    assert torch.equal(logits(loaded), logits(network))
    assert (loaded.architecture, loaded.class_names, loaded.normalisation) == ("cifar_resnet8", NAMES, SCALE)


def test_files_from_before_numpy_2(tmp_path: Path) -> None:
    network, buffer = make(), io.BytesIO()
    content = LAYOUTS["with what trained it"](network.backbone.state_dict())
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    assert b"numpy._core" in buffer.getvalue()
    path = tmp_path / "published.pth"
    path.write_bytes(buffer.getvalue().replace(b"numpy._core", b"numpy.core"))
    assert torch.equal(logits(load(path)), logits(network))


def test_safetensors_file(tmp_path: Path) -> None:
    network = make()
    safetensors.torch.save_file(network.backbone.state_dict(), tmp_path / "weights.safetensors")
    assert torch.equal(logits(load(tmp_path / "weights.safetensors")), logits(network))


@pytest.mark.parametrize("spelling", ["classifier.", "classifier.0."])
def test_both_spellings_of_mobilenet(spelling: str, tmp_path: Path) -> None:
    network = make("MobileNetV2")
    state = {key.replace("classifier.", spelling): value for key, value in network.backbone.state_dict().items()}
    assert f"{spelling}weight" in state
    torch.save({"model": state}, tmp_path / "mobilenet.pth")
    assert torch.equal(logits(load(tmp_path / "mobilenet.pth", "MobileNetV2")), logits(network))


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    content = {"state_dict": make().backbone.state_dict(), "opt": Malicious(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"evil\.pth holds posix\.system, which could only be loaded by running code"):
        load(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "else this file would prove nothing"


def test_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"holds torch\.nn\.modules\.linear\.Linear, which .*Save the plain state dict"):
        read_containers(tmp_path / "model.pt")


@pytest.mark.parametrize("keep", [0, 50, -100])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_truncated_file(name: str, keep: int, tmp_path: Path) -> None:
    path, state = tmp_path / name, make().backbone.state_dict()
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError) as caught:
        read_containers(path)
    message = str(caught.value)
    assert f"{path} is damaged or no weights file: " in message
    assert message.endswith("Copy or download it again.")
    assert "\n" not in message
    assert "weights_only" not in message


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3}, {"state_dict": {}}, torch.ones(2)])
def test_file_without_weights(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"odd\.pth holds no tensors under 'state_dict', 'model' or at its top"):
        read_containers(tmp_path / "odd.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no weights file .*nothing\.pth\. Give a run directory or"):
        load(tmp_path / "nothing.pth")


# strictness


def test_wrong_architecture_lists_keys(tmp_path: Path) -> None:
    torch.save(make().backbone.state_dict(), tmp_path / "resnet8.pth")
    with pytest.raises(UserError) as caught:
        load(tmp_path / "resnet8.pth", "resnet14")
    assert "These weights are not of cifar_resnet14. Keys missing: layer1.1.bn1.bias" in str(caught.value)
    assert "and 25 more" in str(caught.value)
    with pytest.raises(UserError, match=r"Keys missing: .*; left over: bn1"):
        load(tmp_path / "resnet8.pth", "vgg8")


def test_the_number_of_classes_is_the_files(tmp_path: Path) -> None:
    network = make()
    torch.save(network.backbone.state_dict(), tmp_path / "three.pth")
    loaded = load(tmp_path / "three.pth", classes=("a", "b", "c", "d"))
    assert loaded.class_names == ("#0", "#1", "#2") and "is for 3 classes, which it does not name" in loaded.notes[0]
    assert torch.equal(logits(loaded), logits(network))


def test_one_key_more_or_less_is_refused() -> None:
    backbone = make().backbone
    state = backbone.state_dict()
    with pytest.raises(UserError, match=r"Keys left over: fc\.scale\."):
        load_strictly(backbone, {**state, "fc.scale": torch.ones(1)}, "this")
    del state["bn1.running_mean"]
    with pytest.raises(UserError, match=r"Keys missing: bn1\.running_mean\."):
        load_strictly(backbone, state, "this")


def test_a_refused_state_changes_nothing() -> None:
    backbone = make().backbone
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    other = make(seed=1).backbone.state_dict()
    del other["fc.bias"]
    with pytest.raises(UserError):
        load_strictly(backbone, other, "this")
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_weights_without_an_architecture(tmp_path: Path) -> None:
    torch.save(make().backbone.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth holds weights alone\. Say which .*--teacher_architecture NAME"):
        load(tmp_path / "weights.pth", None)


def test_unknown_architecture_offers_the_nearest(tmp_path: Path) -> None:
    torch.save(make().backbone.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"There is no model named 'resnett8'\. Did you mean .*'resnet8'"):
        load(tmp_path / "weights.pth", "resnett8")
