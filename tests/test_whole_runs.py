"""What holds over a whole run and not at one step: nothing compiles anew, and no step waits for the device."""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from sskd.data.batches import Resident
from sskd.methods import METHODS
from sskd.train import loop
from sskd.train.loop import Data, Schedule, Trainer
from sskd.train.step import Execution
from tests.reading import Reads
from tests.trainers import SHAPE, SIZE, Kept, build

METHOD = partial(METHODS["sskd"], head_epochs=2)


def trainer_of(steps: int, kept: Kept) -> Trainer:
    """Two stages of two epochs, each of so many steps and followed by an evaluation."""
    trainer = build(METHOD, epochs=2, kept=kept, schedule=Schedule(SIZE, 0))
    images = steps * SIZE + 1  # one is left over: the ragged rest is not trained on
    feed = Resident(torch.randint(256, (images, *SHAPE), dtype=torch.uint8), torch.arange(images) % 4)
    trainer.data = Data(feed, feed, {"test": feed})
    return trainer


def test_a_run_compiles_each_stage_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through evaluations, other learning rates and epochs. What is guarded does not depend on the backend."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, **given: compiler(step, **given, backend="eager"))
    torch.compiler.reset()
    counters.clear()
    kept = Kept()
    trainer = trainer_of(3, kept)
    trainer.execution = Execution(compiled=True)
    trainer.fit()
    assert [record["stage"] for record in kept.records] == ["head", "head", "student", "student"]
    assert [record["compilations"] for record in kept.records] == [1, 0, 1, 0]
    assert counters["stats"]["unique_graphs"] == len(trainer.plan.stages)
    assert not counters["graph_break"] and not counters["recompile_limit"]


def test_no_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "INTERVAL", 1e9)  # else a slow machine would look at the meters within an epoch
    found = []
    for steps in (2, 6):
        trainer = trainer_of(steps, Kept())
        trainer.data = Data(trainer.data.train, trainer.data.teacher, {})
        with Reads() as reads:
            trainer.fit()
        found.append(reads.count)
    assert found[0] == found[1]
    with Reads() as reads:
        assert torch.ones(()).item() == 1.0 and torch.ones(1).tolist() == [1.0]
    assert reads.count == 2
