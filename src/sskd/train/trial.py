"""Steps on copies of a run's networks and dummy images: how long they take, and whether a graph trains as they do."""

import copy
import gc
import math
import time
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from sskd.memory import all_sent
from sskd.methods.plan import Plan, Stage
from sskd.models.fold import inference_copy
from sskd.models.network import Network
from sskd.train.advance import WARM, Advance, advance_of
from sskd.train.averaging import Averaging
from sskd.train.optim import build_optimizer
from sskd.train.step import Execution, Step, make_trainable, place
from sskd.views.pretext import Batch

NEAR = 0.25  # as a share: losses or updates that differ by more are not rounded (or dropped out) otherwise, but wrong
RATES = (1e-3, 2e-4)  # of steps that are compared: small, so that rounding stays small


class Work(NamedTuple):
    """What steps are tried of: a run's networks and plan, on batches of this form."""

    student: Network
    teacher: Network | None
    plan: Plan
    batch_size: int
    image_shape: tuple[int, int, int]


class Timed(NamedTuple):
    """What a step takes, the loss that it came to (0 for an evaluation), why it was not captured if so asked."""

    seconds: float
    loss: float
    refused: str = ""


def agree(one: Timed, other: Timed) -> bool:
    """Whether two losses are the same but for rounding and dropout."""
    return math.isclose(one.loss, other.loss, rel_tol=NEAR) or (math.isnan(one.loss) and math.isnan(other.loss))


class Trial(NamedTuple):
    """A stage, set up on copies."""

    stage: Stage
    advance: Advance
    trained: list[nn.Parameter]


def trial(execution: Execution, work: Work, which: int, training: bool = True) -> Trial:
    """The `which`-th stage on copies; `training`: not set up to be evaluated."""
    # One copy of everything: terms hold modules of the plan, and must hold the copies.
    held = (work.student, work.teacher, work.plan.stages[which], dict(work.plan.modules))
    student, teacher, stage, modules = copy.deepcopy(held)
    terms = {name: term for name, (_, term) in stage.loss.items()}
    named = {"student": student, **modules, **terms}
    if teacher and execution.folded:
        teacher = inference_copy(teacher.cpu(), work.image_shape, execution.dtype)
    place({**named, **({"teacher": teacher.eval()} if teacher else {})}, execution)
    trained = [p for module in make_trainable(stage, named) for p in module.parameters()]
    if not training:
        for module in named.values():
            module.eval()
    step = Step(stage, student, teacher, execution)
    optimizer = build_optimizer(trained, replace(stage.optim, lr=0.0))
    return Trial(stage, advance_of(step, optimizer, Averaging(trained, step.world)), trained)


def time_step(execution: Execution, work: Work, repeats: int, which: int = -1, evaluating: bool = False) -> Timed:
    """The least of the seconds that steps of a stage take, after those to warm up. `evaluating`: of its measurements,
    instead.
    """
    tried = trial(execution, work, which, not evaluating)
    batch = dummy_batch(work.plan.views.views, tried.stage, work.batch_size, work.image_shape, execution)
    timed, warm, loss = list[float](), WARM + 1 if execution.captured and not evaluating else 1, 0.0
    for _ in range(repeats + warm):
        began = time.perf_counter()
        if evaluating:
            sum(tried.advance.step.measure(batch).values(), torch.zeros(())).item()
        else:
            loss = tried.advance(batch, 0.0).total.item()
        timed.append(time.perf_counter() - began)
    return Timed(min(timed[warm:]), loss, tried.advance.refused)


def trains_alike(execution: Execution, work: Work) -> bool:
    """Whether the last stage's captured step moves the weights as the eager one does; over two batches and rates."""
    moved = list[torch.Tensor]()
    for one in (execution.eager, execution):
        tried, form = trial(one, work, -1), (work.batch_size, work.image_shape, one)
        batches = [dummy_batch(work.plan.views.views, tried.stage, *form, seed) for seed in range(len(RATES))]
        before = [p.detach().clone() for p in tried.trained]
        for i in range(WARM + 4):
            torch.manual_seed(i)
            tried.advance(batches[i % len(RATES)], RATES[i % len(RATES)])
        ways = [(p.detach() - old).flatten() for p, old in zip(tried.trained, before, strict=True)]
        moved.append(torch.cat(ways).double().cpu())
        del tried, batches, before, ways  # before the other way is built
        gc.collect()
    expected, found = moved
    return bool((found - expected).norm() <= NEAR * expected.norm())


def dummy_batch(
    views: int, stage: Stage, batch_size: int, image_shape: tuple[int, int, int], execution: Execution, seed: int = 0
) -> Batch:
    """Random images [B, V, C, H, W] of one class, with what the stage's terms draw."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch_size, views, *image_shape, generator=generator).to(execution.device)
    nothing = torch.zeros(batch_size, dtype=torch.int64, device=execution.device)
    index = torch.arange(batch_size)
    drawn = {name: term.draw(generator, index) for name, (_, term) in stage.loss.items()}
    draws = all_sent(drawn, torch.device(execution.device))
    asked = torch.zeros(images.shape[:2], dtype=torch.int64, device=execution.device)
    dtype = torch.float64 if execution.precision == "fp64" else torch.float32
    return Batch(images.to(dtype), nothing, index.to(execution.device), asked, nothing[0].float(), draws)
