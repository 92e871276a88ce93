"""Which execution is fastest here: measured once per run, then written down and kept."""

import copy
import math
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

import torch

from sskd.memory import all_sent
from sskd.methods.plan import Plan, Stage
from sskd.models.fold import inference_copy
from sskd.models.network import Network
from sskd.train.advance import WARM, advance_of
from sskd.train.averaging import Averaging
from sskd.train.optim import build_optimizer
from sskd.train.step import Execution, Precision, Step, place
from sskd.views.pretext import Batch


def candidates(base: Execution, precision: Precision | Literal["auto"], channels_last: bool | None) -> list[Execution]:
    """The executions to compare; whatever the user has decided is not varied."""
    precisions: tuple[Precision, ...] = (precision,) if precision != "auto" else ("fp32", "bf16")
    formats = (channels_last,) if channels_last is not None else (False, True)
    found = [replace(base, precision=p, channels_last=f) for p in precisions for f in formats]
    if base.device.startswith("cuda") and precision == "auto" and not torch.cuda.is_bf16_supported():
        found = [one for one in found if one.precision != "bf16"]
    return found


def fastest(
    options: Iterable[Execution],
    student: Network,
    teacher: Network | None,
    plan: Plan,
    batch_size: int,
    image_shape: tuple[int, int, int],
    repeats: int = 3,
    vary_threads: bool = False,
) -> tuple[Execution, dict[str, float]]:
    """Time the last stage's training step under each execution, on copies and dummy images.

    `vary_threads`: try the best with one thread too, and take that if it is clearly faster: where other processes
    keep the cores busy, threads that wait for each other are many times slower than one.

    A captured step that comes to another loss than the eager one is not taken.

    Returns the fastest and the seconds per step of each. Neither weights nor torch's generators are touched.
    """
    seconds: dict[Execution, float] = {}
    given = (student, teacher, plan, batch_size, image_shape)

    def measure(option: Execution) -> None:
        found = time_step(option, *given, repeats)
        if option.captured:  # as many steps for both, which move what terms remember
            eager = time_step(option.eager, *given, repeats + WARM)
            if found.refused or not agree(found, eager):
                option, found = option.eager, eager
        seconds[option] = found.seconds

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        for option in options:
            measure(option)
        best = min(seconds, key=lambda option: seconds[option])
        if vary_threads and best.device == "cpu" and threads > 1:
            torch.set_num_threads(1)
            alone = replace(best, threads=1)
            measure(alone)
            torch.set_num_threads(threads)
            best = alone if seconds[alone] < 0.8 * seconds[best] else best
    named = {title(one) + (", 1 thread" if one.threads < threads else ""): value for one, value in seconds.items()}
    return best, {name: round(value, 4) for name, value in named.items()}


NEAR = 0.25  # as a share: losses of one step that differ by more are not rounded (or dropped out) otherwise, but wrong
GAIN = 0.97  # a compiled step is kept where it takes no more than this share of the eager one's time


def compiled(
    eager: Execution,
    student: Network,
    teacher: Network | None,
    plan: Plan,
    batch_size: int,
    image_shape: tuple[int, int, int],
    repeats: int = 5,
) -> tuple[Execution, dict[str, float], str]:
    """Compile the last stage's step, and keep what is clearly fastest.

    On a CUDA device a step that is not captured as a whole may have its passes replayed as CUDA graphs.

    Returns the execution, the seconds per step of each, and why a variant could not be measured, if one could not.
    """
    options = [eager, replace(eager, compiled=True)]
    passes = eager.device.startswith("cuda") and not eager.captured
    options += [replace(eager, compiled=True, graphs=True)] if passes else []
    seconds, failed, reference = dict[Execution, float](), "", Timed(0.0, 0.0)
    with torch.random.fork_rng(devices=[]):
        for option in options:
            try:
                found = time_step(option, student, teacher, plan, batch_size, image_shape, repeats)
                reference = found if option is eager else reference
                if found.refused or not agree(found, reference):
                    raise ArithmeticError(found.refused)
                seconds[option] = found.seconds
            except Exception as error:  # compilers fail in many ways; eager is always there
                if option is eager:
                    raise
                failed = f"{title(option)} failed: {type(error).__name__}"
            torch.compiler.reset()
    best = min(seconds, key=lambda option: seconds[option])
    kept = best if seconds[best] < GAIN * seconds[eager] else eager
    return kept, {title(one): round(value, 4) for one, value in seconds.items()}, failed


def has_compiler() -> bool:
    """Whether this machine has the C++ compiler that torch.compile builds its kernels with."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++", "cl"))


def title(execution: Execution) -> str:
    """One execution in words: "bf16 channels_last"."""
    parts = [execution.precision, "channels_last" if execution.channels_last else "contiguous"]
    parts += ["folded"] if execution.folded else []
    parts += ["compiled"] if execution.compiled else []
    parts += ["CUDA graphs"] if execution.graphs else []
    return " ".join([*parts, "one CUDA graph"] if execution.captured else parts)


class Timed(NamedTuple):
    """What a step takes, the loss that it came to (0 for an evaluation), why it was not captured if so asked."""

    seconds: float
    loss: float
    refused: str = ""


def agree(one: Timed, other: Timed) -> bool:
    """Whether two losses are the same but for rounding and dropout."""
    return math.isclose(one.loss, other.loss, rel_tol=NEAR) or (math.isnan(one.loss) and math.isnan(other.loss))


def time_step(
    execution: Execution,
    student: Network,
    teacher: Network | None,
    plan: Plan,
    batch_size: int,
    image_shape: tuple[int, int, int],
    repeats: int,
    which: int = -1,
    evaluating: bool = False,
) -> Timed:
    """The least of the seconds that steps of a stage take, on copies and dummy images, after those to warm up.

    `evaluating`: of its measurements, instead.
    """
    # One copy of everything: terms hold modules of the plan, and must hold the copies.
    student, teacher, stage, modules = copy.deepcopy((student, teacher, plan.stages[which], dict(plan.modules)))
    terms = {name: term for name, (_, term) in stage.loss.items()}
    named = {"student": student, **modules, **terms}
    if teacher and execution.folded:
        teacher = inference_copy(teacher.cpu().float(), torch.rand(1, *image_shape), execution.precision == "bf16")
    place({**named, **({"teacher": teacher.eval()} if teacher else {})}, execution)
    for name, module in named.items():
        module.requires_grad_(name in stage.trains).train(name in stage.trains and not evaluating)
    step = Step(stage, student, teacher, execution)
    trained = [p for name in stage.trains for p in named[name].parameters()]
    advance = advance_of(step, build_optimizer(trained, replace(stage.optim, lr=0.0)), Averaging(trained, step.world))
    batch = dummy_batch(plan.views.views, stage, batch_size, image_shape, execution)
    timed, warm, loss = list[float](), WARM + 1 if execution.captured and not evaluating else 1, 0.0
    for _ in range(repeats + warm):
        began = time.perf_counter()
        if evaluating:
            sum(step.measure(batch).values(), torch.zeros(())).item()
        else:
            loss = advance(batch, 0.0).total.item()
        timed.append(time.perf_counter() - began)
    return Timed(min(timed[warm:]), loss, advance.refused)


def dummy_batch(
    views: int, stage: Stage, batch_size: int, image_shape: tuple[int, int, int], execution: Execution
) -> Batch:
    """Random images [B, V, C, H, W] of one class, with what the stage's terms draw."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch_size, views, *image_shape, generator=generator).to(execution.device)
    nothing = torch.zeros(batch_size, dtype=torch.int64, device=execution.device)
    index = torch.arange(batch_size)
    drawn = {name: term.draw(generator, index) for name, (_, term) in stage.loss.items()}
    draws = all_sent(drawn, torch.device(execution.device))
    asked = torch.zeros(images.shape[:2], dtype=torch.int64, device=execution.device)
    dtype = torch.float64 if execution.precision == "fp64" else torch.float32
    return Batch(images.to(dtype), nothing, index.to(execution.device), asked, nothing[0].float(), draws)
