"""Runs that are interrupted on purpose, and what they come to. For tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from sskd.runs import Run
from sskd.train.checkpoint import Checkpoint
from tests.conftest import TRAINING, Outcome

SHORT = ("--epochs", "2", "--options.head_epochs", "1")
TIMED = ("seconds", "cpu_seconds", "peak_mib", "images_per_s", "evaluation_seconds")


def assert_refused(outcome: Outcome, *fragments: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("sskd: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert "Traceback" not in outcome.err
    for fragment in fragments:
        assert fragment in outcome.err


def checkpoint_at(epoch: int) -> Checkpoint:
    """A small checkpoint after so many epochs."""
    return {
        "stage": "s",
        "epoch": epoch,
        "part": {"steps": 0, "seconds": 0.0, "meter": {"names": [], "sums": None, "first_bad": None, "weight": 0}},
        "modules": {"student": {"weight": torch.full((3,), float(epoch)), "count": torch.tensor(epoch)}},
        "optimizer": {"state": {0: {"momentum_buffer": torch.rand(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "last": {"stage": "s", "epoch": epoch},
        "best": {},
    }


def flipped(content: bytes, at: int, bits: int = 1) -> bytes:
    """The content with bits flipped in one byte."""
    return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


def change_weights(run: Path) -> None:
    """Make the run's student another network: a whole file, with one bit of a weight changed."""
    path = run / "student" / "model.safetensors"
    values = load_file(path)
    values["fc.bias"].view(torch.uint8)[0] ^= 1
    path.write_bytes(save(values))


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMED}


def tensors(path: Path) -> dict[str, bytes]:
    """What a safetensors file holds, without its record of how long it took."""
    return {name: value.numpy().tobytes() for name, value in load_file(path).items()}


def outcome(run: Path) -> dict[str, Any]:
    """All of a run that must not depend on when it was stopped."""
    result = json.loads((run / "result.json").read_text())
    for key in ("seconds", "finished"):
        del result[key]
    for key in ("last", "best"):
        result[key] = result[key] and untimed(result[key])
    records = [untimed(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        "weights": (run / "student" / "model.safetensors").read_bytes(),
        "config": (run / "student" / "config.json").read_text(),
        "result": result,
        "log": [record for record in records if "reused" not in record],
        "heads": {path.name: tensors(path) for path in (run.parent / "cache").glob("*.safetensors")},
        "leftovers": sorted(path.name for path in run.rglob("*") if path.name.startswith(".")),
    }


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["result"] == other["result"]
    assert one["log"] == other["log"]
    assert one == other


def words_for(few: Path, teacher: Path, out: Path, *more: object) -> list[str]:
    given = ("--student", "cifar_resnet8", "--data", few, "--teacher", teacher, "--out", out, "--fraction", "0.7")
    return ["distill", *map(str, given), *TRAINING, "--validation", "0.2", *map(str, more)]


class Crash(BaseException):
    """The process ends here: nothing catches it."""


class Countdown:
    """Raises at the n-th of the calls that it counts, before or after the call does its work."""

    def __init__(self, at: int, moment: str) -> None:
        self.at, self.moment, self.calls = at, moment, 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            here = self.calls == self.at
            if here and self.moment == "before":
                raise Crash
            value = function(*arguments, **keywords)
            if here and self.moment == "after":
                raise Crash
            return value

        return counted


def count_writes(monkeypatch: pytest.MonkeyPatch, countdown: Countdown) -> None:
    """Count every change that a run makes to the disk: a file put in its place, a line of the log."""
    monkeypatch.setattr(Path, "replace", countdown.wrap(Path.replace))
    monkeypatch.setattr(Run, "log", countdown.wrap(Run.log))


def stop_after(monkeypatch: pytest.MonkeyPatch, command: Callable[[], object], writes: int) -> None:
    with monkeypatch.context() as patch:
        count_writes(patch, Countdown(writes, "after"))
        with pytest.raises(Crash):
            command()
