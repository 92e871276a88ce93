"""Which execution is fastest here: measured once per run, then written down and kept."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from sskd.train.step import Execution, Precision
from sskd.train.trial import Timed, Work, agree, time_step, trains_alike


def candidates(base: Execution, precision: Precision | Literal["auto"], channels_last: bool | None) -> list[Execution]:
    """The executions to compare; whatever the user has decided is not varied."""
    precisions: tuple[Precision, ...] = (precision,) if precision != "auto" else ("fp32", "bf16")
    formats = (channels_last,) if channels_last is not None else (False, True)
    found = [replace(base, precision=p, channels_last=f) for p in precisions for f in formats]
    if base.device.startswith("cuda") and precision == "auto" and not torch.cuda.is_bf16_supported():
        found = [one for one in found if one.precision != "bf16"]
    return found


def fastest(
    options: Sequence[Execution], work: Work, repeats: int = 3, vary_threads: bool = False
) -> tuple[Execution, dict[str, float], str]:
    """Time the last stage's training step under each execution, on copies and dummy images.

    `vary_threads`: try the best with one thread too, and take that if it is clearly faster: where other processes
    keep the cores busy, threads that wait for each other are many times slower than one.

    Where a captured step does not train as the eager one does, none is taken.

    Returns the fastest, the seconds per step of each, and why none is captured, if that was asked for. Neither weights
    nor torch's generator on the CPU are touched; a GPU's is seeded by every step of a run.
    """
    seconds, refused = dict[Execution, float](), ""

    def measure(option: Execution) -> None:
        nonlocal refused
        found = time_step(option, work, repeats)
        refused = found.refused or refused
        seconds[option.eager if found.refused else option] = found.seconds

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        for option in options:
            measure(option)
        best = min(seconds, key=lambda option: seconds[option])
        if best.captured and not trains_alike(best, work):
            refused = "replayed steps do not move the weights as ordinary ones do"
            seconds.clear()
            for option in options:
                measure(option.eager)
            best = min(seconds, key=lambda option: seconds[option])
        if vary_threads and best.device == "cpu" and threads > 1:
            torch.set_num_threads(1)
            alone = replace(best, threads=1)
            measure(alone)
            torch.set_num_threads(threads)
            best = alone if seconds[alone] < 0.8 * seconds[best] else best
    named = {title(one) + (", 1 thread" if one.threads < threads else ""): value for one, value in seconds.items()}
    rounded = {name: round(value, 4) for name, value in named.items()}
    return best, rounded, "" if best.captured else refused


GAIN = 0.97  # a compiled step is kept where it takes no more than this share of the eager one's time


def compiled(eager: Execution, work: Work, repeats: int = 5) -> tuple[Execution, dict[str, float], str]:
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
                found = time_step(option, work, repeats)
                reference = found if option is eager else reference
                if option is not eager and (found.refused or not agree(found, reference)):
                    raise ArithmeticError(found.refused or "it comes to another loss")
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
