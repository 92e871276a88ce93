"""Networks as ONNX files: what they compute, and what whoever runs one is told."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.export import onnx as exporting
from sskd.export.onnx import export
from sskd.jobs.predict import predictions
from sskd.models.checkpoints import save_network
from sskd.models.network import Network, create_network
from sskd.models.normalisation import Normalisation
from tests.conftest import Cli
from tests.photographs import write_photographs

onnxruntime = pytest.importorskip("onnxruntime")
NAMES = ("building", "flower", "neither")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("export") / "photographs", {"test": 6})


def folder(name: str, place: Path, channels: int = 3, side: int = 64, crop_pct: float = 1.0) -> Path:
    torch.manual_seed(0)
    stated = Normalisation((0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels], "here")
    network = create_network(name, NAMES, (channels, side, side), stated)
    for module in network.modules():  # as after training
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    network.crop_pct = crop_pct
    save_network(network, network.backbone.state_dict(), place, (channels, side, side))
    return place


def labelled(session: Any, path: str) -> dict[str, float]:
    """As docs/your-own-data.md does it, with numpy and Pillow alone."""
    facts = session.get_modelmeta().custom_metadata_map
    reduced, side = int(facts["reduced"]), int(facts["side"])
    (_, channels, height, width) = session.get_inputs()[0].shape
    assert height == width == side
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    image = ImageOps.fit(image, (reduced, reduced), Image.Resampling.BILINEAR)
    image = image.convert("L") if channels == 1 else image
    corner = (reduced - side) // 2
    pixels = np.asarray(image.crop((corner, corner, corner + side, corner + side)), np.float32).reshape(side, side, -1)
    (logits,) = session.run(None, {"images": pixels.transpose(2, 0, 1)[None] / 255})
    shares = np.exp(logits[0] - logits[0].max())
    return dict(zip(json.loads(facts["classes"]), (shares / shares.sum()).tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "channels", "side", "crop_pct"),
    [
        ("cifar_shufflenet_v1", 3, 32, 1.0),
        ("mobilenetv3_small_050", 3, 64, 0.875),
        ("cifar_resnet8", 1, 32, 0.875),
        ("vit_tiny_patch16_224", 3, 224, 0.9),
        ("torchvision:resnet18", 3, 64, 1.0),
    ],
)
def test_a_file_labels_images_as_the_network_does(
    name: str, channels: int, side: int, crop_pct: float, photographs: Path, tmp_path: Path
) -> None:
    network, file = folder(name, tmp_path / "network", channels, side, crop_pct), tmp_path / "new" / "small.onnx"
    said = export(str(network), str(file))
    assert said["bytes"] == file.stat().st_size and said["input"].endswith(f"{channels}, {side}, {side}], from 0 to 1")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found, _, _ = predictions(str(network), [str(photographs)], top=len(NAMES))
    assert len(found) == 12 * len(NAMES) and len({one.probability for one in found}) > len(NAMES)
    for one in found:
        assert labelled(session, one.path)[one.label] == pytest.approx(one.probability, abs=2e-5)


def test_the_command(sskd: Cli, tmp_path: Path) -> None:
    network = folder("cifar_resnet8", tmp_path / "network", side=32)
    done = sskd("export", network, "--out", tmp_path / "small.onnx")
    assert done.code == 0 and "[batch, 3, 32, 32]" in done.out and "ms for one image" in done.out
    meta = onnxruntime.InferenceSession(tmp_path / "small.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(meta["classes"]) == list(NAMES) and meta["architecture"] == "cifar_resnet8"


class Strange(nn.Module):
    """What no exporter can express, or what is another each time."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(3 * 32 * 32, len(NAMES))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        if self.kind == "values":
            return logits if logits.sum() > 0 else -logits
        return logits + torch.rand_like(logits) if self.kind == "random" else logits / 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("values", "cannot be written as ONNX"),
        ("random", "gives other logits than torch"),
        ("infinite", "Is it finite"),
    ],
)
def test_what_is_not_the_same_is_not_written(
    kind: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    strange = Network("strange", Strange(kind), Normalisation((0.5,) * 3, (0.5,) * 3, "here"), NAMES, 32)
    monkeypatch.setattr(exporting, "load_network", lambda *_: strange)
    with pytest.raises(UserError, match=message):
        export("there", str(tmp_path / "strange.onnx"))
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = folder("cifar_resnet8", tmp_path / "network", side=32)
    with pytest.raises(UserError, match="--epochs 0"):
        export(str(network / "model.safetensors"), str(tmp_path / "small.onnx"))
    with pytest.raises(UserError, match="could not be written"):
        export(str(network), str(tmp_path / "network"))

    def missing(name: str) -> Any:
        if name == "onnxscript":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return import_module(name)

    monkeypatch.setattr(exporting, "import_module", missing)
    with pytest.raises(UserError, match=r"onnxscript is not installed.*sskd\[export\]"):
        export(str(network), str(tmp_path / "small.onnx"))
