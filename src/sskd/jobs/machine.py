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
from sskd.train.choose import candidates, compiled, fastest, has_compiler, title
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


LONG = 900.0  # seconds: shorter runs would lose to the compiler what they gain
MANY = 1000  # steps: with fewer it is not even asked how long they take


def chosen(job: Job, parts: Assembled, device: str, display: Display) -> tuple[Execution, dict[str, float]]:
    """The fastest execution among those that the user leaves open, and the seconds per step of each."""
    training, images = job.training, len(parts.splits.train)
    base = Execution(device=device, threads=torch.get_num_threads(), folded=parts.teacher is not None)
    options = candidates(base, training.precision, training.channels_last)
    best, timed = options[0], dict[str, float]()
    size, steps = min(training.batch_size, images), training.epochs * (images // min(training.batch_size, images))
    measured = (parts.student, parts.teacher, parts.plan, size // launched().size, parts.shape)
    open_end = training.compiled is None and steps >= MANY and has_compiler()
    if len(options) > 1 or open_end:
        best, timed = fastest(options, *measured, vary_threads=training.threads is None)
        torch.set_num_threads(best.threads)
    others, said = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in timed.items()), ""
    if open_end and (left := min(timed.values()) * steps) < LONG:
        said = f"Not compiled: {left / 60:.0f} minutes of training are too short to gain by it."
    elif open_end:
        best, tried, failed = compiled(best, *measured)
        said = "; ".join([*(f"{name} {seconds * 1000:.0f} ms" for name, seconds in tried.items()), failed]).rstrip("; ")
        said, timed = f"With and without the compiler: {said}.", {**timed, **tried}
    elif training.compiled:
        best = replace(best, compiled=has_compiler())
        said = "" if best.compiled else "There is no C++ compiler on this machine, so the step is not compiled."
    threads = f"{best.threads} thread{'' if best.threads == 1 else 's'}"
    display.note(f"{device}, {threads}: {title(best)}" + (f" (an eager step: {others})" if others else ""))
    if said:
        display.note(said)
    return best, timed
