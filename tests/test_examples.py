"""The loops in examples/ run, at tiny size; the plain one comes to the numbers of the engine."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from PIL import Image

import sskd
from sskd.data import load_source

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str, needs: str = "torch") -> ModuleType:
    pytest.importorskip(needs)
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_is_under_a_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 100


def test_the_plain_loop_has_the_engines_numbers(tmp_path: Path) -> None:
    """Same seed, crops and schedule: the same student, but for rounding."""
    noise = torch.Generator().manual_seed(0)
    for split, count in (("train", 80), ("test", 4)):
        for name in "ab":
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i, pixels in enumerate(torch.randint(256, (count, 12, 12, 3), generator=noise).byte().numpy()):
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
    data = str(tmp_path / "data")
    source = load_source(data)
    torch.manual_seed(5)
    teacher = timm.create_model("cifar_resnet8", num_classes=2)
    facts: dict[str, Any] = {"num_classes": 2, "image_shape": (3, 12, 12), "mean": source.mean, "std": source.std}
    sskd.Distiller(teacher, None, "ce", **facts).save_student(tmp_path / "teacher", source.class_names)
    accuracy = example("pytorch").main(data, 2, 2, teacher, str(tmp_path / "plain"))
    result = sskd.distill(
        "cifar_resnet8",
        data,
        teacher=str(tmp_path / "teacher"),
        options={"head_epochs": 2},
        epochs=2,
        validation=0,
        flip=0.0,
        precision="fp32",
        channels_last=False,
        compiled=False,
        out=str(tmp_path / "engine"),
    )
    assert result["last"]["test"]["top1"] == pytest.approx(accuracy)
    plain, engine = (
        timm.create_model(f"local-dir:{tmp_path}/{name}/student", pretrained=True).state_dict()
        for name in ("plain", "engine")
    )
    for key, value in plain.items():
        assert torch.allclose(value, engine[key], rtol=1e-3, atol=1e-5), key


def test_lightning(tmp_path: Path) -> None:
    module = example("lightning_loop", "lightning")
    accuracy = module.main(1, 1, str(tmp_path), limit_train_batches=2, limit_val_batches=1, enable_progress_bar=False)
    assert 0 <= accuracy <= 1
    assert timm.create_model(f"local-dir:{tmp_path}/student", pretrained=True).num_classes == 10


def test_hf_trainer(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    module = example("hf_trainer", "transformers")
    assert 0 <= module.main(1, 1, 50, str(tmp_path)) <= 1
    loaded = module.MobileViTForImageClassification.from_pretrained(tmp_path / "student")
    assert loaded.config.num_labels == 10


def test_timm(tmp_path: Path) -> None:
    module = example("timm_loop")
    images = module.drawn(tmp_path / "drawn", 8)
    assert 0 <= module.main(str(images), 1, 1, 32, str(tmp_path)) <= 1
    loaded: Any = timm.create_model(f"local-dir:{tmp_path}/student", pretrained=True)
    assert loaded.num_classes == 3 and loaded.pretrained_cfg["input_size"][-1] == 32
