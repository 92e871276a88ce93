"""How a run uses the machine at hand: measured when it starts, kept when it goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from sskd.environment import processor
from sskd.errors import UserError
from sskd.jobs.assemble import Assembled
from sskd.jobs.job import Job
from sskd.jobs.teachers import pick_device
from sskd.progress import Display
from sskd.runs import Run
from sskd.train.choose import candidates, fastest, has_compiler, title
from sskd.train.distributed import launched
from sskd.train.step import Execution


def resumed(run: Run, device: str, display: Display) -> Execution:
    """The execution that the run began with; says what is another here.

    Raises:
        UserError: the config does not say it.
    """
    config = run.config() or {}
    try:
        execution = Execution(**config["execution"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{run.path}/config.json is damaged: its execution cannot be read ({error}). "
            "Restore it, or start anew with another --out."
        ) from error
    if torch.device(execution.device).type != torch.device(device).type:
        display.note(f"This run began on {pick_device(execution.device)}; it goes on there.")
    else:
        execution = replace(execution, device=device)
    if (began := config.get("environment", {}).get("processor")) != processor():
        display.note(f"This run began on {began}; here is {processor()}, so its numbers may differ in the last digits.")
    if torch.get_num_threads() != execution.threads:
        display.note(f"This run began with {execution.threads} threads; it goes on with as many.")
    torch.set_num_threads(execution.threads)
    return execution


OUT_OF_MEMORY = ("can't allocate memory", "out of memory")


@contextmanager
def memory_explained(job: Job, parts: Assembled, execution: Execution) -> Iterator[None]:
    """Say what would fit where memory runs out.

    Raises:
        UserError: it ran out; with the largest batch, of halves of the one asked for, that a step has room for.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's own out-of-memory error is a RuntimeError
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in OUT_OF_MEMORY):
            raise
        reason = " ".join(str(error).split())[:160]
        size = min(job.training.batch_size, len(parts.splits.train))
        fitting = _fitting(parts, execution, size // 2)
        cure = f"A step with --batch_size {fitting} fits" if fitting else "Not even a step with one image fits"
        raise UserError(
            f"Memory ran out with batches of {size} images, {parts.plan.views.views} views each ({reason}). {cure}; "
            "smaller --size, --precision bf16 or a smaller network need less too. Start again with another --out."
        ) from error


def _fitting(parts: Assembled, execution: Execution, size: int) -> int | None:
    """The largest of size, size / 2, size / 4 ... images with which a step has room."""
    while size:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            fastest([execution], parts.student, parts.teacher, parts.plan, size, parts.shape, repeats=1)
            return size
        except (RuntimeError, MemoryError):
            size //= 2
    return None


def chosen(job: Job, parts: Assembled, device: str, display: Display) -> tuple[Execution, dict[str, float]]:
    """The fastest execution among those that the user leaves open, and the seconds per step of each."""
    training = job.training
    base = Execution(device=device, threads=torch.get_num_threads(), folded=parts.teacher is not None)
    options = candidates(base, training.precision, training.channels_last)
    best, timed = options[0], dict[str, float]()
    if len(options) > 1:
        size = min(training.batch_size, len(parts.splits.train)) // launched().size
        vary = training.threads is None
        plan, shape = parts.plan, parts.shape
        best, timed = fastest(options, parts.student, parts.teacher, plan, size, shape, vary_threads=vary)
        torch.set_num_threads(best.threads)
    # Timed eager: compiling every candidate would cost more than it saves. Without a compiler eager stays.
    best = replace(best, compiled=training.compiled and has_compiler())
    threads = f"{best.threads} thread{'' if best.threads == 1 else 's'}"
    others = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in timed.items())
    display.note(f"{device}, {threads}: {title(best)}" + (f" (an eager step: {others})" if others else ""))
    if training.compiled and not best.compiled:
        display.note("There is no C++ compiler on this machine, so the step is not compiled.")
    return best, timed
