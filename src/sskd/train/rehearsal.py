"""One process of several tries its part of every stage by itself, to see whether it fits in memory."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sskd.memory import all_sent
from sskd.methods.plan import Stage
from sskd.train.distributed import World
from sskd.train.evaluate import images_at_once
from sskd.train.gradients import gradients_of
from sskd.train.loop import Trainer
from sskd.train.optim import build_optimizer
from sskd.train.step import Execution, Step, make_trainable, merge, place
from sskd.train.synchronised import SynchronisedBatchNorm
from sskd.train.trial import dummy_batch
from sskd.views.pretext import Batch

STEPS = 2  # the second has the optimiser's momentum beside it


@dataclass(frozen=True)
class Imagined(World):
    """The processes of a run as one of them imagines them: its own values stand for theirs, and nothing is sent."""

    def together(self, values: Tensor) -> Tensor:
        """As many values as the whole batch has."""
        return torch.cat([values] * self.size)


def rehearse(trainer: Trainer, execution: Execution, batch_size: int, image_shape: tuple[int, int, int]) -> None:
    """Steps and an evaluation of every stage, eager, on copies and dummy images, with all that real ones hold: the
    whole batch's values at the terms that relate images, gradients, momentum. Sends nothing, and draws nothing from
    torch's generators. `batch_size`: of all processes together.

    Raises:
        RuntimeError, MemoryError: memory ran out, among others.
    """
    world = Imagined(trainer.world.share, trainer.world.relations, trainer.world.batch_norm)
    # In evaluation each process is given whole batches.
    evaluated = max(batch_size, *(images_at_once(trainer, feed) for feed in trainer.data.evaluation.values()))
    cuda = [torch.device(execution.device)] if execution.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=cuda):
        for which in range(len(trainer.plan.stages)):
            # One copy of everything: terms hold modules of the plan, and must hold the copies.
            copied = copy.deepcopy((trainer.student, trainer.teacher, trainer.plan))
            _stage(copied, which, world, execution.eager, (batch_size, evaluated), image_shape)


def _stage(
    copied: Any, which: int, world: World, execution: Execution, sizes: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    student, teacher, plan = copied
    stage: Stage = plan.stages[which]
    batch_size, evaluated = sizes
    named = merge({"student": student}, plan.modules, {name: term for name, (_, term) in stage.loss.items()})
    place(named, execution)
    for module in [*named.values(), *([teacher] if teacher else [])]:
        for part in module.modules():
            if isinstance(part, SynchronisedBatchNorm):
                part.world = world
    trained = [p for module in make_trainable(stage, named) for p in module.parameters()]
    step = Step(stage, student, teacher, execution, world)
    gradients, optimizer = gradients_of(step), build_optimizer(trained, replace(stage.optim, lr=0.0))
    views, how = plan.views.views, (shape, execution)
    batch = _drawn(stage, world, execution, dummy_batch(views, stage, batch_size // world.size, *how))
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        losses = gradients(batch)
        optimizer.step()
        step.update(losses, batch)
    for module in named.values():
        module.eval()
    evaluated = execution.micro_batch or evaluated
    step.measure(dummy_batch(views, replace(stage, loss={}), evaluated, *how))
    losses.total.item()  # a GPU has done all of it
    step.close()


def _drawn(stage: Stage, world: World, execution: Execution, batch: Batch) -> Batch:
    """Terms that see all of the batch draw for all of it."""
    generator, size = torch.Generator().manual_seed(0), len(batch.labels)
    rows = {True: torch.arange(size * world.size), False: torch.arange(size)}
    drawn = {name: term.draw(generator, rows[world.gathers(term)]) for name, (_, term) in stage.loss.items()}
    return batch._replace(draws=all_sent(drawn, torch.device(execution.device)))
