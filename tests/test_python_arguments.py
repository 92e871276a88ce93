"""What is refused of arguments given in Python: wrong names, types and ranges are a `UserError`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sskd
from sskd.analyses.probe import probe
from sskd.api import distillation
from sskd.data.check import check
from sskd.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": None}, r"epochs: expected a whole number; got None"),
        ({"epoch": 3}, r"no argument named 'epoch'\. Did you mean 'epochs'"),
        ({"teachr": "x"}, r"no argument named 'teachr'\. Did you mean 'teacher'"),
        ({"lr": 0.1}, r"no argument named 'lr': it is one of optim's\. Say optim=Optim\(lr="),
        ({"optim": 3}, r"optim: expected names with values; got 3"),
        ({"fraction": "half"}, r"fraction: expected a number; got 'half'"),
        ({"fraction": 0}, r"The fraction of labels is 0; expected more than 0 and at most 1"),
        ({"options": [1]}, r"options: expected names with values; got \[1\]"),
        ({"method": 3}, r"method: expected text; got 3"),
        ({"reading": 3}, r"reading: expected names with values; got 3"),
        ({"teacher": 3}, r"A teacher is a network's name or place, or a torch\.nn\.Module; got 3"),
        ({"teacher": "x", "teacher_mean": (0.5, "x")}, r"x, mean\[1\]: expected a number; got 'x'"),
        ({"scale": (0.1, 0.2, 0.3)}, r"scale: expected a list of length 2"),
        ({"student_taps": {"own": 3}}, r"student_taps\[\.\.\.\]: expected text; got {'own': 3}"),
    ],
)
def test_refused_in_python(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        sskd.distill("cifar_resnet8", "digits", out=str(tmp_path / "run"), **arguments)
    assert not [*tmp_path.iterdir()]


def test_settings_may_be_plain_values() -> None:
    job = distillation("cifar_resnet8", "digits", epochs=3, optim={"lr": 1}, scale=[0.5, 1])
    assert (job.training.epochs, job.training.optim.lr, job.training.scale) == (3, 1.0, (0.5, 1.0))


@pytest.mark.parametrize(
    "function",
    [
        lambda reading: sskd.evaluate("x", "digits", reading=reading),
        lambda reading: sskd.train_teacher("digits", "cifar_resnet8", reading=reading),
        lambda reading: sskd.distill("cifar_resnet8", ([], []), reading=reading),
        lambda reading: probe("x", "digits", reading=reading),
        lambda reading: check("digits", reading),
    ],
)
def test_reading_may_be_plain_values(function: Callable[[Any], object]) -> None:
    with pytest.raises(UserError, match=r"reading, test_share: expected .*; got 'x'"):
        function({"test_share": "x"})
    with pytest.raises(UserError, match="test_share"):
        function({"test_share": 7})
