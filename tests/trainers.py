"""Trainers of small networks that keep everything in memory. For tests."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.data.batches import Resident
from sskd.data.source import DataInfo
from sskd.jobs.assemble import pair_of
from sskd.methods import METHODS
from sskd.methods.parts import CrossEntropy
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Stage, Term
from sskd.models.network import create_network
from sskd.models.normalisation import Normalisation
from sskd.train import loop
from sskd.train.checkpoint import Checkpoint
from sskd.train.distributed import World
from sskd.train.loop import Data, Schedule, StageRun, Trainer
from sskd.train.optim import learning_rate
from sskd.train.protocols import Record
from sskd.train.step import Execution, Step
from sskd.views.pretext import Batch, Plain

SHAPE, CLASSES, SIZE = (3, 8, 8), 4, 6


def info() -> DataInfo:
    names, labels = tuple("abcd"), torch.arange(2 * SIZE) % CLASSES
    return DataInfo("few", len(labels), names, labels, (0.5,) * 3, (0.2,) * 3, SHAPE)


class Bank(Term):
    """A stand-in for a memory bank: pushes predictions from those remembered of drawn images, then remembers them."""

    student_taps = ("logits",)
    relates = True
    memory: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(size, CLASSES))

    def draw(self, generator: torch.Generator, index: Int64[Tensor, "B"]) -> dict[str, Tensor]:
        return {"rows": torch.randint(len(self.memory), (len(index), 2), generator=generator)}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        return (student["logits"][:, :1] - self.memory[batch.draws["bank"]["rows"]]).square().mean()

    def remembering(self, student: Outputs, teacher: Outputs, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self(student, teacher, batch), {"logits": student["logits"][:, 0]}

    def update(self, seen: Mapping[str, Tensor], batch: Batch) -> None:
        self.memory.index_copy_(0, batch.index, 0.5 * self.memory[batch.index] + 0.5 * seen["logits"])


def bank(pair: Pair, *, epochs: int, optim: Optim) -> Plan:
    """A method of the tests."""
    loss: dict[str, tuple[float, Term]] = {"ce": (1.0, CrossEntropy()), "bank": (0.1, Bank(pair.data.size))}
    return Plan((Stage("train", loss, ("student",), epochs, optim),), Plain())


ASKING: dict[str, Callable[..., Plan]] = {
    "sskd, rotation": partial(METHODS["sskd"], pretext="rotation"),
    "sskd, jigsaw": partial(METHODS["sskd"], pretext="jigsaw"),
    "sskd, exemplar": partial(METHODS["sskd"], pretext="exemplar"),
    "sskd, drawn answers": partial(METHODS["sskd"], pretext="exemplar", answers=2 * SIZE - 3),
}
"""SSKD with its other questions."""
TRANSFORMED = {"sskd, all transformations": partial(METHODS["sskd"], transformations="all")}
"""SSKD with its other views, of which the step knows nothing."""


class Kept:
    """Keeper, cache and listener in memory."""

    def __init__(self, state: Checkpoint | None = None) -> None:
        self.state, self.saved, self.records = state, list[Checkpoint](), list[Record]()
        self.notes = list[str]()

    def load(self) -> Checkpoint | None:
        return self.state

    def save(self, checkpoint: Checkpoint) -> None:
        self.saved.append(copy.deepcopy(checkpoint))

    def log(self, record: Record) -> None:
        self.records.append(record)

    def hold(self, stage: Stage, waiting: Callable[[str], None]) -> AbstractContextManager[None]:
        return nullcontext()

    def find(self, stage: Stage) -> None:
        return None

    def keep(self, stage: Stage, states: dict[str, dict[str, Tensor]], record: Record) -> Path:
        return Path("nowhere")

    def progress(self, stage: str, epoch: int, epochs: int, share: float) -> None:
        pass

    def epoch(self, record: Record, epochs: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def build(
    method: Callable[..., Plan],
    precision: Any = "fp32",
    kept: Kept | None = None,
    epochs: int = 1,
    schedule: Schedule = Schedule(SIZE, 0),  # noqa: B008  # frozen
    networks: tuple[str, str] = ("cifar_resnet8", "cifar_resnet8"),
    side: int = SHAPE[-1],
    world: World = World(),  # noqa: B008  # frozen
    execution: Execution | None = None,
) -> Trainer:
    """`networks`: the teacher's name and the student's. `execution`: eager, on the CPU, where it is not given."""
    torch.manual_seed(3)
    plain, shape = Normalisation((0.5,) * 3, (0.2,) * 3, "test"), (3, side, side)
    teacher, student = (create_network(name, tuple("abcd"), shape, plain) for name in networks)
    pair = pair_of(student, teacher, replace(info(), image_shape=shape))
    plan = method(pair, epochs=epochs, optim=Optim(lr=0.05))
    execution = execution or Execution(precision=precision)
    pixels = torch.randint(256, (2 * SIZE, *shape), dtype=torch.uint8).to(execution.device)
    data, kept = Resident(pixels, info().labels.to(execution.device), share=world.share), kept or Kept()
    split = Data(data, data, {"validation": data})
    return Trainer(student, teacher, plan, split, schedule, execution, kept, kept, kept, world)


def steps_of(trainer: Trainer) -> Iterator[tuple[StageRun, Step, list[nn.Parameter]]]:
    """Each stage, entered, with its step and what it trains."""
    for stage in trainer.plan.stages:
        run, step = (
            StageRun(trainer, stage),
            Step(stage, trainer.student, trainer.teacher, trainer.execution, trainer.world),
        )
        yield run, step, [p for module in run.enter() for p in module.parameters()]
        step.close()


def batch_at(run: StageRun, i: int) -> Batch:
    """The i-th batch. To be made when its turn has come: what a term draws may depend on the steps before."""
    cut, generator = next(iter(run.feed.epoch(SIZE, run.trainer.plan.views.views, (i,))))
    return run.batch(cut, generator, i)


def rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning rates to float32, as which a CUDA graph reads them: runs in float64 would part in the eighth digit."""
    monkeypatch.setattr(loop, "learning_rate", lambda *given: float(torch.tensor(learning_rate(*given))))


def states(run: StageRun) -> dict[str, dict[str, Tensor]]:
    return copy.deepcopy({name: module.state_dict() for name, module in run.modules.items()})


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())
