"""The only loop. It runs the stages of any plan, and names no method."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sskd.data.feed import ALONE, Cut, Feed, Share
from sskd.errors import UserError
from sskd.memory import all_sent, peak_memory, sent
from sskd.methods.plan import Plan, Stage
from sskd.models.checkpoints import load_state
from sskd.models.network import Network
from sskd.seeds import mix
from sskd.stopping import Terminated, saving_on_sigterm, stop_requested
from sskd.train.advance import Advance, advance_of
from sskd.train.averaging import Averaging
from sskd.train.checkpoint import Checkpoint
from sskd.train.distributed import World
from sskd.train.evaluate import evaluated
from sskd.train.meters import Meter, Part
from sskd.train.optim import build_optimizer, learning_rate
from sskd.train.protocols import Keeper, Listener, Record, Shared
from sskd.train.remembered import Looked, remembered
from sskd.train.step import Execution, Step, make_trainable, merge, place
from sskd.train.synchronised import arrange_norms
from sskd.train.watch import watching
from sskd.views.pretext import Batch

LOOKS, OFTEN = 20, 100  # at the meters in an epoch, or every so many steps, where several processes train
INTERVAL = 2.0  # seconds between two looks at the meters, each of which waits for the device


@dataclass(frozen=True)
class Data:
    """What a run trains and measures on."""

    train: Feed
    teacher: Feed  # what the shared stages train on
    evaluation: Mapping[str, Feed]  # "validation", "test"


@dataclass(frozen=True)
class Schedule:
    """How the data is walked through. Batches are of `batch_size` images or, where fewer are there, of all."""

    batch_size: int
    seed: int
    evaluate_every: int = 1  # epochs; each evaluation is followed by a checkpoint
    checkpoint_every: float = 600.0  # seconds, within long epochs


class Trainer:
    """Runs a plan: each stage from the last checkpoint on, then the next."""

    def __init__(
        self,
        student: Network,
        teacher: Network | None,
        plan: Plan,
        data: Data,
        schedule: Schedule,
        execution: Execution,
        keeper: Keeper,
        shared: Shared,
        listener: Listener,
        world: World = World(),  # noqa: B008  # frozen
    ) -> None:
        self.networks: dict[str, nn.Module] = {"student": student, **({"teacher": teacher} if teacher else {})}
        self.student, self.teacher, self.plan = student, teacher, plan
        self.data, self.schedule, self.execution = data, schedule, execution
        self.keeper, self.shared, self.listener, self.world = keeper, shared, listener, world
        self.best: dict[str, Any] = {}
        self.last: Record = {}
        place({**self.networks, **plan.modules}, execution)
        self._arrange_norms()

    def _arrange_norms(self) -> None:
        if self.world.size == 1:
            return
        terms = {f"{stage.name}/{name}": term for stage in self.plan.stages for name, (_, term) in stage.loss.items()}
        trained = {"student": self.student, **self.plan.modules, **terms}
        if note := arrange_norms(trained.values(), self.world, self.schedule.batch_size):
            self.listener.note(note)

    def fit(self) -> None:
        """Run every stage to its end. Afterwards `last` is the last record and `best` the best on validation, if any.

        Raises:
            UserError: a loss that is not finite; a checkpoint that cannot be written.
        """
        state: Checkpoint | None = self.world.agreed(self.keeper.load())
        names = [stage.name for stage in self.plan.stages]
        if state and state["stage"] not in names:
            raise UserError(
                f"The checkpoint is in stage {state['stage']!r}; this method's stages are {', '.join(names)}. "
                "It was written by another version: start anew with another --out."
            )
        for stage in self.plan.stages[names.index(state["stage"]) if state else 0 :]:
            StageRun(self, stage).run(state)
            state = None


class StageRun:
    """One stage of a trainer: its step, optimiser and position."""

    def __init__(self, trainer: Trainer, stage: Stage) -> None:
        self.trainer, self.stage = trainer, stage
        terms = {name: term for name, (_, term) in stage.loss.items()}
        self.modules = merge(trainer.networks, trainer.plan.modules, terms)
        place(terms, trainer.execution)
        self.feed = trainer.data.teacher if stage.shared else trainer.data.train
        # What is shared must not depend on which student asks for it first.
        self.seed = 0 if stage.shared else trainer.schedule.seed
        self.device = torch.device(trainer.execution.device)

    def run(self, state: Checkpoint | None) -> None:
        """Train from `state`, or from the cache or the start where there is none."""
        trainer = self.trainer
        with trainer.shared.hold(self.stage, trainer.listener.note) if self.stage.shared else nullcontext():
            self._run(state)

    def _run(self, state: Checkpoint | None) -> None:
        if state is None and self.stage.shared and self._reuse():
            return
        step = Step(self.stage, self.trainer.student, self.trainer.teacher, self.trainer.execution, self.trainer.world)
        try:
            with saving_on_sigterm():
                self._train(step, state)
        finally:
            step.close()
            for module in self.modules.values():
                module.zero_grad(set_to_none=True)  # a graph's memory lives as long as its gradients
        if self.stage.shared:
            states = {name: self.modules[name].state_dict() for name in self.stage.trains}
            place_kept = self.trainer.shared.keep(self.stage, states, self.trainer.last)
            self.trainer.listener.note(f"{self.stage.name}: kept for other students in {place_kept}")

    def _reuse(self) -> bool:
        found = self.trainer.world.agreed(self.trainer.shared.find(self.stage))
        if found is None or any(
            _shapes(self.modules[name].state_dict()) != _shapes(one) for name, one in found[1].items()
        ):
            return False
        path, states = found
        for name, values in states.items():
            self.modules[name].load_state_dict(values)
        self.trainer.keeper.log({"stage": self.stage.name, "reused": str(path)})
        self.trainer.listener.note(f"{self.stage.name}: reused from {path}")
        return True

    def _train(self, step: Step, state: Checkpoint | None) -> None:
        trained = self.enter()
        step.known, looked = remembered(self, step), Looked(self, step)
        parameters = [p for module in trained for p in module.parameters()]
        optimizer = build_optimizer(parameters, self.stage.optim)
        averaging = Averaging(parameters, self.trainer.world)
        first, part = self._restore(state, optimizer) if state else (0, Part())
        self.trainer.world.spread(self.modules.values())
        advance = advance_of(step, optimizer, averaging)
        every, told = self.trainer.schedule.evaluate_every, ""
        for epoch in range(first, self.stage.epochs):
            with watching(self.trainer.execution) as watched:
                record = self._epoch(advance, epoch, part)
            record |= watched
            if advance.refused and not told:
                told = f"{self.stage.name}: no CUDA graph was made of a step: {advance.refused}."
                self.trainer.listener.note(told)
            part = Part()
            if (epoch + 1) % every == 0 or epoch + 1 == self.stage.epochs:
                began = time.perf_counter()
                self.trainer.world.average_statistics(self.modules)
                record |= evaluated(self, step, looked)
                record["evaluation_seconds"] = round(time.perf_counter() - began, 3)
                self._remember(record)
                self.trainer.keeper.log(record)
                self.trainer.keeper.save(self._state(epoch + 1, part, optimizer))
                if stop_requested():
                    raise Terminated
            else:
                self.trainer.keeper.log(record)
            self.trainer.listener.epoch(record, self.stage.epochs)

    def enter(self) -> list[nn.Module]:
        """Freeze everything and put it in eval; what the stage trains becomes trainable, in train mode."""
        return make_trainable(self.stage, self.modules)

    def _epoch(self, advance: Advance, epoch: int, part: Part) -> Record:
        schedule, world = self.trainer.schedule, self.trainer.world
        address = (self.seed, self.stage.name, epoch)
        own = () if world.first else (world.share.rank,)  # else processes would drop the same of other images
        steps, views = self.feed.steps(schedule.batch_size), self.trainer.plan.views
        batches = self.feed.epoch(schedule.batch_size, views.views if views.own_crop else 1, address, part.steps)
        began = looked = saved = time.perf_counter()
        looks = max(1, min(steps // LOOKS, OFTEN))
        before, rate, images, computed = part.seconds, 0.0, 0, time.process_time()
        for i, (cut, generator) in enumerate(batches, part.steps):
            rate = learning_rate(self.stage.optim, (epoch + i / steps) / self.stage.epochs)
            torch.manual_seed(mix(*address, i, "dropout", *own))
            losses = advance(self.batch(cut, generator, epoch), rate)
            measured = {"total": losses.total, **losses.terms, **losses.watched}
            part.meter.update(measured, epoch * steps + i, len(cut.labels))
            part.steps, part.seconds, images = i + 1, before + time.perf_counter() - began, len(cut.whole)
            stop = stop_requested()  # never asked of several processes
            # Clocks differ: several processes look after as many steps.
            if stop or (part.steps % looks == 0 if world.size > 1 else time.perf_counter() - looked > INTERVAL):
                looked = time.perf_counter()
                advance.averaging.look()
                part.meter.check(self.stage.name)
                self.trainer.listener.progress(self.stage.name, epoch, self.stage.epochs, part.steps / steps)
                if world.agreed(stop or looked - saved > schedule.checkpoint_every) and part.steps < steps:
                    saved = looked
                    world.average_statistics(self.modules)
                    part.meter = world.collected(part.meter, self.device)
                    self.trainer.keeper.save(self._state(epoch, part, advance.optimizer))
                    if stop:
                        raise Terminated
        part.meter = world.collected(part.meter, self.device)
        part.meter.check(self.stage.name)
        means, seconds = part.meter.read(), before + time.perf_counter() - began
        losses_read = {name: means.pop(name) for name in ("total", *self.stage.loss) if name in means}
        return {
            "stage": self.stage.name,
            "epoch": epoch + 1,
            "step": (epoch + 1) * steps,
            "lr": rate,
            "seconds": round(seconds, 3),
            "cpu_seconds": round(time.process_time() - computed, 3),
            "peak_mib": peak_memory(self.trainer.execution.device),
            "images_per_s": round(steps * images / seconds, 1),
            "loss": losses_read,
            "train": means,
        }

    def batch(self, cut: Cut, generator: torch.Generator, epoch: int) -> Batch:
        """A training batch of crops. What is drawn besides comes from the step's generator."""
        batch, world = self.viewed(cut, generator, epoch, self.trainer.world.share), self.trainer.world
        drawn = {
            name: term.draw(generator, cut.whole if world.gathers(term) else cut.index)
            for name, (_, term) in self.stage.loss.items()
        }
        return batch._replace(draws=all_sent(drawn, cut.pixels.device))

    def viewed(self, cut: Cut, generator: torch.Generator, epoch: int, share: Share = ALONE) -> Batch:
        """A batch of views, without what terms draw. `share`: of the whole batch's draws, which are these crops'."""
        views = self.trainer.plan.views
        dtype = torch.float64 if self.trainer.execution.precision == "fp64" else torch.float32
        crops = (cut.pixels.float() / 255).to(dtype)
        images, asked = views.transform(crops.expand(-1, views.views, -1, -1, -1), generator, share)
        done = torch.full((), float(epoch), device=images.device)
        return Batch(images, cut.labels, sent(cut.index, images.device), asked, done, {})

    def _remember(self, record: Record) -> None:
        self.trainer.last = record
        score = record.get("validation", {}).get("top1")
        if self.stage is not self.trainer.plan.stages[-1] or score is None:
            return
        best = self.trainer.best
        if not best or score > best["record"]["validation"]["top1"]:
            weights = {key: value.detach().cpu().clone() for key, value in self._student_state().items()}
            self.trainer.best = {"record": record, "student": weights}

    def _student_state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.trainer.student.backbone.state_dict()
        return state

    def _state(self, epoch: int, part: Part, optimizer: torch.optim.Optimizer) -> Checkpoint:
        modules = {name: module.state_dict() for name, module in self.modules.items() if name != "teacher"}
        modules["student"] = self._student_state()
        return {
            "stage": self.stage.name,
            "epoch": epoch,
            "part": part.state(),
            "modules": modules,
            "optimizer": optimizer.state_dict(),
            "last": self.trainer.last,
            "best": self.trainer.best,
        }

    def _restore(self, state: Checkpoint, optimizer: torch.optim.Optimizer) -> tuple[int, Part]:
        for name, values in state["modules"].items():
            target = self.trainer.student.backbone if name == "student" else self.modules[name]
            load_state(target, values, name)
        optimizer.load_state_dict(state["optimizer"])
        self.trainer.last, self.trainer.best = state["last"], state["best"]
        part = Part.restored(state["part"], self.device)
        if not self.trainer.world.first:  # the first process has what all had measured
            part.meter = Meter()
        return int(state["epoch"]), part


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}
