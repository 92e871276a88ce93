"""A step that is recorded and replayed, with a stand-in for the GPU; on a real one: tests/test_cuda.py."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from sskd.methods import METHODS
from sskd.methods.plan import Plan
from sskd.train import advance, choose
from sskd.train.advance import WARM, Captured
from sskd.train.choose import compiled, fastest, title
from sskd.train.loop import Schedule, Trainer
from sskd.train.step import Execution, Losses
from sskd.train.trial import RATES, Timed, Work
from sskd.views.pretext import Batch
from tests.recording import ALIVE, FAILING, POOLS, TRAINER, Graph, stand_in
from tests.test_distributed import shorten
from tests.trainers import ASKING, TRANSFORMED, Bank, Kept, bank, build

CAPTURED = Execution(precision="fp64", captured=True)
NOTHING: Any = None
HONEST = Captured.__call__
ALL = {**METHODS, "bank": bank, **ASKING, **TRANSFORMED}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)


def trained(method: Callable[..., Plan], execution: Execution) -> tuple[Trainer, Kept]:
    kept = Kept()
    trainer = build(method, kept=kept, execution=execution, schedule=Schedule(4, 0))  # of three steps each
    TRAINER.append(trainer)
    shorten(trainer.plan)
    trainer.fit()
    return trainer, kept


@pytest.mark.parametrize("method", ALL.values(), ids=ALL)
def test_a_replayed_run_is_the_ordinary_run(gpu: None, method: Callable[..., Plan]) -> None:
    """Other batches, draws, rates and memories each time."""
    _, expected = trained(method, replace(CAPTURED, captured=False))
    trainer, found = trained(method, CAPTURED)
    assert len(ALIVE) == len(trainer.plan.stages) and found.notes == expected.notes
    for one, stage in zip(ALIVE, trainer.plan.stages, strict=True):
        assert isinstance(one._graph, Graph) and one._graph.replayed == 3 * stage.epochs - WARM
    for one_record, other in zip(expected.records, found.records, strict=True):
        assert one_record["lr"] == other["lr"]
        for key, value in one_record["loss"].items():
            assert other["loss"][key] == pytest.approx(value, rel=1e-9), (one_record["stage"], one_record["epoch"], key)
    for name, values in expected.saved[-1]["modules"].items():
        for key, value in values.items():
            torch.testing.assert_close(found.saved[-1]["modules"][name][key], value, rtol=1e-7, atol=1e-9)


def test_what_is_recorded_may_be_compiled(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each stage: nothing that a graph reads has another shape, stride or type than in the steps before."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, **given: compiler(step, **given, backend="eager"))
    torch.compiler.reset()
    counters.clear()
    trainer, found = trained(METHODS["sskd"], replace(CAPTURED, compiled=True))
    assert counters["stats"]["unique_graphs"] == len(trainer.plan.stages) == len(ALIVE)
    assert not counters["graph_break"] and not counters["recompile_limit"]
    assert all(one._graph for one in ALIVE) and not any("CUDA graph" in note for note in found.notes)


def test_a_step_that_waits_is_not_recorded(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting(work: Callable[[], object]) -> int:
        work()
        return 2

    monkeypatch.setattr(advance, "synchronisations", waiting)
    _, expected = trained(METHODS["kd"], replace(CAPTURED, captured=False))
    _, found = trained(METHODS["kd"], CAPTURED)
    assert ALIVE[0]._graph is None
    assert found.notes == ["student: no CUDA graph was made of a step: the host waits for the GPU."]
    assert found.records[-1]["loss"]["total"] == pytest.approx(expected.records[-1]["loss"]["total"], rel=1e-6)


class Odd(Bank):
    """A term that does what a graph does not record."""

    how = ""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.counts, self.all, self.generator = dict[str, int](), list[Tensor](), torch.Generator()

    def update(self, seen: Mapping[str, Tensor], batch: Batch) -> None:
        super().update(seen, batch)
        if self.how == "counts":
            self.count = getattr(self, "count", 0) + 1
        elif self.how == "draws":
            self.memory.mul_(torch.rand(()))
        elif self.how == "draws with random":
            self.memory.mul_(random.random())
        elif self.how == "draws with numpy":
            self.memory.mul_(float(np.random.rand()))
        elif self.how == "replaces":
            self.memory = torch.cat([self.memory[1:], self.memory[:1]])
        elif self.how == "keeps":
            self.kept = self.memory.clone()
        elif self.how == "counts in a dict":
            self.counts["steps"] = self.counts.get("steps", 0) + 1
        elif self.how == "keeps in a list":
            self.all.append(self.memory.clone())
        elif self.how == "draws by itself":
            self.memory.mul_(torch.rand((), generator=self.generator))


ODD = {
    "counts": "a step keeps count in Python",
    "draws": "a step draws random numbers on the host",
    "draws with random": "a step draws random numbers on the host",
    "draws with numpy": "a step draws random numbers on the host",
    "replaces": "a step replaces tensors",
    "keeps": "a step replaces tensors",
    "counts in a dict": "a step keeps count in Python",
    "keeps in a list": "a step replaces tensors",
    "draws by itself": "a step draws random numbers on the host",
}


@pytest.mark.parametrize("how", ODD)
def test_a_step_that_a_graph_would_not_repeat_is_not_recorded(
    gpu: None, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Odd, "how", how)
    monkeypatch.setattr("tests.trainers.Bank", Odd)
    _, found = trained(bank, CAPTURED)
    assert found.notes == [f"train: no CUDA graph was made of a step: {ODD[how]}."]


def test_batches_of_another_form_end_the_replaying(gpu: None) -> None:
    class Growing(Odd):
        def draw(self, generator: torch.Generator, index: Tensor) -> dict[str, Tensor]:
            self.drawn = getattr(self, "drawn", 1) + 1
            return {"rows": torch.randint(len(self.memory), (len(index), 1 + self.drawn // 7), generator=generator)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.trainers.Bank", Growing)
        _, expected = trained(bank, replace(CAPTURED, captured=False))
        _, found = trained(bank, CAPTURED)
    assert isinstance(ALIVE[0]._graph, Graph) and ALIVE[0]._graph.replayed == 2
    assert found.notes == ["train: no CUDA graph was made of a step: batches are not of one form."]
    assert found.records[-1]["loss"]["bank"] == pytest.approx(expected.records[-1]["loss"]["bank"], rel=1e-9)


@pytest.mark.parametrize("reason", FAILING)
def test_a_recording_that_fails_costs_nothing(gpu: None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", FAILING[reason])
    _, expected = trained(METHODS["kd"], replace(CAPTURED, captured=False))
    _, found = trained(METHODS["kd"], CAPTURED)
    assert f"student: no CUDA graph was made of a step: {reason}." in found.notes
    assert found.records[-1]["loss"]["total"] == pytest.approx(expected.records[-1]["loss"]["total"], rel=1e-6)
    assert not POOLS and advance.UNFINISHED[-1] is not None


def stale_rate(self: Captured, batch: Batch, rate: float) -> Losses:
    return HONEST(self, batch, RATES[0])


def stale_batch(self: Captured, batch: Batch, rate: float) -> Losses:
    return HONEST(self, batch if self._batch is None else self._batch, rate)


def nothing(self: Captured, batch: Batch, rate: float) -> Losses:
    return HONEST(self, batch, 0.0)


@pytest.mark.parametrize("wrong", [None, stale_rate, stale_batch, nothing])
def test_a_graph_is_taken_where_it_trains_as_the_eager_step_does(
    gpu: None, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(METHODS["sskd"], precision="fp32")
    TRAINER.append(trainer)
    if wrong:
        monkeypatch.setattr(Captured, "__call__", wrong)
    option = Execution(captured=True)
    best, timed, refused = fastest([option], Work(trainer.student, trainer.teacher, trainer.plan, 4, (3, 8, 8)))
    assert best == (option.eager if wrong else option) and list(timed) == [title(best)]
    assert refused == ("replayed steps do not move the weights as ordinary ones do" if wrong else "")
    assert any(isinstance(one._graph, Graph) for one in ALIVE)


def test_what_is_refused_counts_as_eager(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advance, "synchronisations", lambda work: work() or 1)
    trainer, option = build(METHODS["kd"]), Execution(captured=True)
    best, timed, refused = fastest([option], Work(trainer.student, trainer.teacher, trainer.plan, 4, (3, 8, 8)))
    assert best == option.eager and list(timed) == [title(best)] and refused == "the host waits for the GPU"


def test_what_compiles_to_another_loss_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast it is."""
    wrong = {False: Timed(2.0, 3.0), True: Timed(0.1, 9.0)}
    monkeypatch.setattr(choose, "time_step", lambda option, *_: wrong[option.compiled])
    eager = Execution("cuda", "bf16")
    best, timed, failed = compiled(eager, NOTHING)
    assert best == eager and timed == {title(eager): 2.0} and "failed: ArithmeticError" in failed
