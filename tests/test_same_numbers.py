"""`sskd evaluate` and `sskd inspect` come to the accuracy that a run came to, or say why not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sskd.api import distill, evaluate
from sskd.models.network import Network
from tests.conftest import Cli


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_run_is_measured_as_it_measured_itself(
    few: Path, teacher: Path, tmp_path: Path, sskd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own precision; where the accuracy is another all the same, a note says under what conditions."""
    run, seen = tmp_path / "run", list[bool]()
    small: dict[str, Any] = {"epochs": 1, "batch_size": 20, "validation": 0.0, "threads": 1, "tensorboard": False}
    measured = distill("cifar_resnet8", str(few), str(teacher), "kd", out=str(run), precision="bf16", **small)
    forward = Network.forward

    def watched(self: Network, images: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return forward(self, images)

    monkeypatch.setattr(Network, "forward", watched)
    for place in (run, run / "student"):
        seen.clear()
        found = evaluate(str(place), str(few))
        assert (found["top1"], found["precision"], found["notes"]) == (measured["last"]["test"]["top1"], "bf16", [])
        assert seen[-1] and not any(seen[:-1]), "but for looks at its taps and outputs before"
    assert sskd("inspect", run, "--points", "0").code == 0
    looked = read(run / "analyses" / "inspect.json")
    assert looked["top1"] == pytest.approx(measured["last"]["test"]["top1"])
    assert (looked["precision"], looked["teacher_precision"]) == ("bf16", "fp32")
    assert looked["teacher_top1"] == pytest.approx(read(teacher / "result.json")["last"]["test"]["top1"])
    assert evaluate(str(teacher), str(few))["precision"] == "fp32"
    result = read(run / "result.json")
    result["last"]["test"]["top1"] = 0.4625
    (run / "result.json").write_text(json.dumps(result))
    (note,) = evaluate(str(run), str(few))["notes"]
    assert note.startswith("The run itself measured 46.25% (bf16 on cpu, ") and "here it is bf16 on cpu" in note
