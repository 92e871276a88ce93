"""What to do where memory runs out: fewer images at a time."""

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch

from sskd.errors import UserError
from sskd.jobs.assemble import Assembled
from sskd.jobs.job import Job
from sskd.jobs.small import one_value
from sskd.progress import Display
from sskd.train.choose import fastest
from sskd.train.distributed import launched
from sskd.train.loop import Trainer
from sskd.train.rehearsal import rehearse
from sskd.train.step import Execution
from sskd.train.trial import Work

OUT_OF_MEMORY = (
    "out of memory",  # CUDA
    "can't allocate memory",  # torch, on a CPU
    "bad_alloc",  # the C++ library
    # oneDNN, whose scratch memory is part of a primitive. What it cannot compute at all fails with one image too, and
    # the error then quotes this.
    "could not create a primitive",
)
NOTHING = (
    "Not even a step with one image at a time fits; smaller --size, --precision bf16 or a smaller network need less. "
    "Start again with another --out."
)
T = TypeVar("T")


@dataclass(frozen=True)
class NoRoom:
    """Memory ran out."""

    reason: str


def ran_out(error: BaseException) -> bool:
    """Whether this is what running out of memory looks like; torch's own error is a RuntimeError."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


def with_room(work: Callable[[], T]) -> T | NoRoom:
    """What `work` returns, or that there was no room for it.

    By then nothing of what it had made is left: an error that is still being handled keeps the failed step's values,
    and whoever tries with less would find their memory taken.

    Raises:
        UserError: a batch norm got one value for each channel, as may happen with fewer images at a time.
    """
    try:
        return work()
    except ValueError as error:
        if not one_value(error):
            raise
        raise UserError(
            f"A norm got one value for each channel, which has no variance ({error}). Give it more images at a time "
            "(--batch_size, --micro_batch, fewer processes), or larger images."
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
    if "torch._dynamo" in sys.modules:  # else nothing has been compiled
        torch.compiler.reset()  # compiled steps keep what they were given
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return NoRoom(reason)


def stepped(option: Execution, job: Job, parts: Assembled) -> object:
    """The last stage's step of one process, for `with_room`."""
    size = _batch(job, parts) // launched().size
    return fastest([option], Work(parts.student, parts.teacher, parts.plan, size, parts.shape), repeats=1)


def smaller(job: Job, parts: Assembled, execution: Execution, failed: NoRoom, display: Display) -> Execution:
    """The execution with the largest micro-batch, of halves of what ran out of memory, for which there is room.

    Raises:
        UserError: there is none; several processes train, of which the others cannot be reached from within a step.
    """
    batch, processes = _batch(job, parts) // launched().size, launched().size
    size, told = (execution.micro_batch or batch) // 2, _told(execution, batch, parts, failed)
    if processes > 1 and size:
        raise UserError(
            f"{told}. Each of the {processes} processes had room for a step before the training began, so something "
            f"else takes memory now. The same command with --micro_batch {size} goes on from the last checkpoint."
        )
    if execution.captured and not isinstance(with_room(partial(stepped, execution.eager, job, parts)), NoRoom):
        display.note(f"{told}. From here on steps are not replayed as a CUDA graph, which keeps its memory to itself.")
        return execution.eager
    while size:
        less = replace(execution.eager, micro_batch=size)
        if not isinstance(with_room(partial(stepped, less, job, parts)), NoRoom):
            display.note(_from_here(told, size))
            return less
        size //= 2
    raise UserError(f"{told}. {NOTHING}")


def fitting(job: Job, parts: Assembled, trainer: Trainer, display: Display) -> Execution:
    """The trainer's execution, with a micro-batch for which there is room on all of several processes.

    A process that runs out of memory within a step would leave the others waiting for its part of a message. So each
    tries its part by itself, without any message, and only then do all say whether they had room.

    Raises:
        UserError: there is none.
    """
    execution, whole, told = trainer.execution, _batch(job, parts), ""
    batch = whole // trainer.world.size
    while True:
        tried = with_room(partial(rehearse, trainer, execution, whole, parts.shape))
        reasons = trainer.world.listed(tried.reason if isinstance(tried, NoRoom) else "")
        if not any(reasons):
            break
        told = told or _told(execution, batch, parts, NoRoom(next(filter(None, reasons))))
        size = (execution.micro_batch or batch) // 2
        if not size:
            raise UserError(f"{told}. {NOTHING}")
        execution = replace(execution.eager, micro_batch=size)
    if told:
        display.note(_from_here(told, execution.micro_batch))
    return execution


def _batch(job: Job, parts: Assembled) -> int:
    """Of all processes together."""
    return min(job.training.batch_size, len(parts.splits.train))


def _told(execution: Execution, batch: int, parts: Assembled, failed: NoRoom) -> str:
    views = parts.plan.views.views
    return (
        f"Memory ran out with {execution.micro_batch or batch} images at a time, {views} views each ({failed.reason})"
    )


def _from_here(told: str, size: int) -> str:
    return (
        f"{told}. From here on {size} are run at a time; a batch's loss stays that of all its images, and batch norms "
        f"use the statistics of {size}. --micro_batch {size} asks for it from the start."
    )
