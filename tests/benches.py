"""Grids of tiny trainings, and run directories made by hand. For tests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

TRAINING = {"batch_size": 20, "validation": 12, "precision": "fp32", "channels_last": False, "threads": 1}
BASE: dict[str, Any] = {
    "pairs": [{"teacher": "cifar_resnet8", "student": "cifar_resnet8"}],
    "methods": {"kd": {}, "sskd": {"head_epochs": 1}},
    "training": {**TRAINING, "epochs": 2, "tensorboard": False},
}


def write_recipe(folder: Path, name: str = "tiny", **changed: Any) -> Path:
    """A recipe file; `changed` keys in place of the base's, None to leave one out."""
    values = {key: value for key, value in {**BASE, "data": "digits", **changed}.items() if value is not None}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def fake_run(
    folder: Path, last: float, best: float | None = None, seconds: float = 10.0, loss: Mapping[str, float] | None = None
) -> None:
    """A finished run: what a table reads of it. Accuracies are shares."""
    folder.mkdir(parents=True)
    stage = {"name": "student", "epochs": 1, "trains": ["student"], "loss": dict(loss or {"ce": 1.0})}
    data = {"name": "cifar100", "train_images": 49000, "validation_images": 1000, "test_images": 10000}
    environment = {"processor": "some processor", "torch": "2.0"}
    (folder / "config.json").write_text(json.dumps({"data": data, "stages": [stage], "environment": environment}))
    before = {"stage": "head", "epoch": 1, "seconds": 4.0, "cpu_seconds": 3.0, "peak_mib": 700}
    record = {"stage": "student", "epoch": 1, "seconds": seconds, "cpu_seconds": seconds / 2, "peak_mib": 900}
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (before, record)) + '{"cut off')
    records = {"last": {**record, "test": {"top1": last}}, "best": best and {**record, "test": {"top1": best}}}
    (folder / "result.json").write_text(json.dumps({**records, "weights": "0"}))
