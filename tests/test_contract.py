"""More of what methods and the loop promise each other: taps are read, a stage may measure nothing, curves are kept."""

from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import Float
from torch import Tensor, nn

from sskd.curves import with_curves
from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Stage, Term
from sskd.models.network import Normalisation
from sskd.views.pretext import Batch, Plain
from tests.test_methods import Kept, batch_at, build, steps_of


class Reads(UserDict[str, Tensor]):
    """Outputs that remember which taps were looked at."""

    def __init__(self, values: Outputs) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        self.read.add(key)
        return super().__getitem__(key)


@pytest.mark.parametrize("method", METHODS.values(), ids=[*METHODS])
def test_every_tap_asked_for_is_read(method: Callable[..., Plan]) -> None:
    for run, step, _ in steps_of(build(method)):
        batch = batch_at(run, 0)
        outputs = {"student": step._outputs(step.student, batch), "teacher": step._teacher_outputs(batch)}
        for _, term in run.stage.loss.values():
            student, teacher = Reads(outputs["student"]), Reads(outputs["teacher"])
            term(student, teacher, batch)
            assert student.read == set(term.student_taps)
            assert teacher.read == set(term.teacher_taps)


class Paraphraser(Term):
    """A stand-in for FT's first stage: reads the teacher alone, watches nothing."""

    teacher_taps = ("stage3",)

    def __init__(self, coder: nn.Module) -> None:
        super().__init__()
        self.borrowed = (coder,)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        feature = teacher["stage3"][:, 0]
        return (self.borrowed[0](feature) - feature).square().mean()


def paraphrasing(pair: Pair, *, epochs: int, optim: Optim) -> Plan:
    coder = nn.Conv2d(64, 64, 1)
    stage = Stage("paraphraser", {"code": (1.0, Paraphraser(coder))}, ("coder",), epochs, optim, shared=True)
    return Plan((stage,), Plain(), {"coder": coder})


def test_a_stage_may_measure_nothing() -> None:
    kept = Kept()
    build(paraphrasing, kept=kept, epochs=12).fit()
    assert [record["validation"] for record in kept.records] == [{}] * 12
    first, last = (kept.records[i]["loss"]["code"] for i in (0, -1))
    assert last < first


def test_curves_are_written_and_passed_on(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    class Told(Kept):
        def epoch(self, record: dict[str, Any]) -> None:
            self.records.append(record)

    record = {"stage": "student", "epoch": 3, "step": 30, "lr": 0.5, "loss": {"ce": 1.25}, "test": {"top1": 0.75}}
    told = Told()
    with_curves(told, tmp_path).epoch(record)
    assert told.records == [record]
    written = accumulator.EventAccumulator(str(tmp_path))
    written.Reload()
    assert set(written.Tags()["scalars"]) == {"student/lr", "student/loss/ce", "student/test/top1"}
    event = written.Scalars("student/loss/ce")[0]
    assert (event.step, event.value) == (3, 1.25)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.0,)), ((0.5, 0.5), (1.0,)), ((float("nan"),), (1.0,))])
def test_impossible_normalisations_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="normalisation from the test cannot be used"):
        Normalisation(mean, std, "the test")


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(UserError, match="nesterov needs"):
        Optim(nesterov=True, momentum=0.0)
    assert Optim(nesterov=True).momentum == 0.9
