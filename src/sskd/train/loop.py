"""The only loop. It runs the stages of any plan, and names no method."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sskd.data.batches import Resident, epoch_order, in_order
from sskd.errors import UserError
from sskd.methods.plan import Plan, Stage
from sskd.models.network import Network
from sskd.train.meters import Meter
from sskd.train.optim import build_optimizer, learning_rate
from sskd.train.protocols import Keeper, Listener, Record, Shared
from sskd.train.seeds import generator_at, mix
from sskd.train.step import Execution, Losses, Step, place
from sskd.views.augment import Augment, plain_views
from sskd.views.pretext import Batch

INTERVAL = 2.0  # seconds between two looks at the meters, each of which waits for the device


@dataclass(frozen=True)
class Data:
    """What a run trains and measures on, on the device."""

    train: Resident
    teacher: Resident  # what the shared stages train on
    evaluation: Mapping[str, Resident]  # "validation", "test"


@dataclass(frozen=True)
class Schedule:
    """How the data is walked through. Batches are of `batch_size` images or, where fewer are there, of all."""

    batch_size: int
    seed: int
    evaluate_every: int = 1  # epochs; also the interval of checkpoints
    augment: Augment = field(default_factory=Augment)


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
    ) -> None:
        self.networks: dict[str, nn.Module] = {"student": student, **({"teacher": teacher} if teacher else {})}
        self.student, self.teacher, self.plan = student, teacher, plan
        self.data, self.schedule, self.execution = data, schedule, execution
        self.keeper, self.shared, self.listener = keeper, shared, listener
        self.best: dict[str, Any] = {}
        self.last: Record = {}
        place({**self.networks, **plan.modules}, execution)

    def fit(self) -> None:
        """Run every stage to its end. Afterwards `last` is the last record and `best` the best on validation, if any.

        Raises:
            UserError: a loss that is not finite; a checkpoint that cannot be written.
        """
        state = self.keeper.load()
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
        self.data = trainer.data.teacher if stage.shared else trainer.data.train
        # What is shared must not depend on which student asks for it first.
        self.seed = 0 if stage.shared else trainer.schedule.seed

    def run(self, state: dict[str, Any] | None) -> None:
        """Train from `state`, or from the cache or the start where there is none."""
        if state is None and self.stage.shared and self._reuse():
            return
        step = Step(self.stage, self.trainer.student, self.trainer.teacher, self.trainer.execution)
        try:
            self._train(step, state)
        finally:
            step.close()
        if self.stage.shared:
            states = {name: self.modules[name].state_dict() for name in self.stage.trains}
            place_kept = self.trainer.shared.keep(self.stage, states, self.trainer.last)
            self.trainer.listener.note(f"{self.stage.name}: kept for other students in {place_kept}")

    def _reuse(self) -> bool:
        found = self.trainer.shared.find(self.stage)
        if found is None:
            return False
        path, states = found
        for name, values in states.items():
            self.modules[name].load_state_dict(values)
        self.trainer.keeper.log({"stage": self.stage.name, "reused": str(path)})
        self.trainer.listener.note(f"{self.stage.name}: reused from {path}")
        return True

    def _train(self, step: Step, state: dict[str, Any] | None) -> None:
        run: Callable[[Batch], Losses] = step
        if self.trainer.execution.compiled:
            run = torch.compile(step, fullgraph=True, dynamic=False)
        trained = self.enter()
        parameters = [p for module in trained for p in module.parameters()]
        optimizer = build_optimizer(parameters, self.stage.optim)
        first = self._restore(state, optimizer) if state else 0
        every = self.trainer.schedule.evaluate_every
        for epoch in range(first, self.stage.epochs):
            record = self._epoch(run, optimizer, epoch)
            if (epoch + 1) % every == 0 or epoch + 1 == self.stage.epochs:
                began = time.perf_counter()
                record |= {name: self._evaluate(step, data) for name, data in self.trainer.data.evaluation.items()}
                record["evaluation_seconds"] = round(time.perf_counter() - began, 3)
                self._remember(record)
                self.trainer.keeper.log(record)
                self.trainer.keeper.save(self._state(epoch + 1, optimizer))
            else:
                self.trainer.keeper.log(record)
            self.trainer.listener.epoch(record)

    def enter(self) -> list[nn.Module]:
        """Freeze everything and put it in eval; what the stage trains becomes trainable, in train mode."""
        for module in self.modules.values():
            module.requires_grad_(False).eval()
        return [self.modules[name].requires_grad_(True).train() for name in self.stage.trains]

    def _epoch(self, run: Callable[[Batch], Losses], optimizer: torch.optim.Optimizer, epoch: int) -> Record:
        address = (self.seed, self.stage.name, epoch)
        batches = epoch_order(len(self.data), self.trainer.schedule.batch_size, generator_at(*address))
        meter, began, looked = Meter(), time.perf_counter(), time.perf_counter()
        rate = 0.0
        for i, index in enumerate(batches):
            rate = learning_rate(self.stage.optim, (epoch + i / len(batches)) / self.stage.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(mix(*address, i, "dropout"))
            losses = run(self._batch(index, generator_at(*address, i), epoch))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(losses.total)
            optimizer.step()
            meter.update({"total": losses.total, **losses.terms, **losses.watched}, epoch * len(batches) + i)
            if time.perf_counter() - looked > INTERVAL:
                looked = time.perf_counter()
                meter.check(self.stage.name)
                share = (i + 1) / len(batches)
                self.trainer.listener.progress(self.stage.name, epoch, self.stage.epochs, share)
        meter.check(self.stage.name)
        means, seconds = meter.read(), time.perf_counter() - began
        losses_read = {name: means.pop(name) for name in ("total", *self.stage.loss)}
        return {
            "stage": self.stage.name,
            "epoch": epoch + 1,
            "step": (epoch + 1) * len(batches),
            "lr": rate,
            "seconds": round(seconds, 3),
            "images_per_s": round(batches.numel() / seconds, 1),
            "loss": losses_read,
            "train": means,
        }

    def _batch(self, index: Tensor, generator: torch.Generator, epoch: int) -> Batch:
        device = self.data.pixels.device
        pixels, labels = self.data.take(index.to(device))
        images, asked = self.trainer.schedule.augment(pixels, self.trainer.plan.views, generator)
        drawn = {name: term.draw(generator, index) for name, (_, term) in self.stage.loss.items()}
        draws = {name: value.to(device) for name, value in drawn.items() if value is not None}
        return self._finish(images, labels, index.to(device), asked, epoch, draws)

    def _finish(
        self,
        images: Tensor,
        labels: Tensor,
        index: Tensor,
        asked: Tensor,
        epoch: int,
        draws: dict[str, Tensor],
    ) -> Batch:
        dtype = torch.float64 if self.trainer.execution.precision == "fp64" else torch.float32
        done = torch.tensor(float(epoch), device=images.device)
        return Batch(images.to(dtype), labels, index, asked, done, draws)

    def _evaluate(self, step: Step, data: Resident) -> dict[str, float]:
        """Means over a split, in eval mode. Batches as in training: the pretext's question depends on their size."""
        modes = {part: part.training for module in self.modules.values() for part in module.modules()}
        for module in self.modules.values():
            module.eval()
        meter, generator = Meter(), generator_at("evaluate")
        # Without a question there is nothing that depends on the batch, and large batches are faster.
        size = self.trainer.schedule.batch_size if self.trainer.plan.views.views > 1 else 512
        for index in in_order(len(data), size):
            pixels, labels = data.take(index.to(data.pixels.device))
            images, asked = plain_views(pixels, self.trainer.plan.views, generator)
            nowhere = torch.full_like(labels, -1)
            batch = self._finish(images, labels, nowhere, asked, self.stage.epochs, {})
            meter.update(step.measure(batch), 0, len(index))
        for part, mode in modes.items():
            part.training = mode
        meter.check(self.stage.name)
        means = meter.read()
        means.pop("logits", None)
        return means

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

    def _state(self, epoch: int, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        modules = {name: module.state_dict() for name, module in self.modules.items() if name != "teacher"}
        modules["student"] = self._student_state()
        return {
            "stage": self.stage.name,
            "epoch": epoch,
            "modules": modules,
            "optimizer": optimizer.state_dict(),
            "last": self.trainer.last,
            "best": self.trainer.best,
        }

    def _restore(self, state: dict[str, Any], optimizer: torch.optim.Optimizer) -> int:
        for name, values in state["modules"].items():
            target = self.trainer.student.backbone if name == "student" else self.modules[name]
            target.load_state_dict(values)
        optimizer.load_state_dict(state["optimizer"])
        self.trainer.last, self.trainer.best = state["last"], state["best"]
        return int(state["epoch"])


def merge(*groups: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """One namespace of all that a stage may train or keep.

    Raises:
        ValueError: two modules of one name; a mistake of the method, not of the user.
    """
    merged: dict[str, nn.Module] = {}
    for group in groups:
        for name, module in group.items():
            if name in merged:
                raise ValueError(f"the name {name!r} stands for two modules of this plan")
            merged[name] = module
    return merged
