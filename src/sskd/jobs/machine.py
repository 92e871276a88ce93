"""How a run uses the machine at hand: measured when it starts, kept when it goes on."""

from dataclasses import replace

import torch

from sskd.environment import processor
from sskd.errors import UserError
from sskd.jobs.assemble import Assembled
from sskd.jobs.job import Job
from sskd.jobs.teachers import pick_device
from sskd.progress import Display
from sskd.runs import Run
from sskd.settings import Training
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


def ran_out(error: BaseException) -> bool:
    """Whether this is what running out of memory looks like; torch's own error is a RuntimeError."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


def smaller(job: Job, parts: Assembled, execution: Execution, error: BaseException, display: Display) -> Execution:
    """The execution with the largest micro-batch, of halves of what ran out of memory, for which there is room.

    Raises:
        UserError: there is none, or several processes would have to agree on it.
    """
    batch = min(job.training.batch_size, len(parts.splits.train)) // launched().size
    size, reason = (execution.micro_batch or batch) // 2, " ".join(str(error).split())[:160]
    told = f"Memory ran out with {execution.micro_batch or batch} images at a time, {parts.plan.views.views} views each"
    while size and launched().size == 1:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        less = replace(execution, micro_batch=size, compiled=False, graphs=False)
        try:
            fastest([less], parts.student, parts.teacher, parts.plan, batch, parts.shape, repeats=1)
        except (RuntimeError, MemoryError) as another:
            if not ran_out(another):
                raise
            size //= 2
            continue
        display.note(
            f"{told}. From here on {size} are run at a time; a batch's loss stays that of all its {batch} images, and "
            f"batch norms use the statistics of {size}. --micro_batch {size} asks for it from the start."
        )
        return less
    cure = "Not even a step with one image at a time fits" if not size else f"Say --micro_batch {size}"
    raise UserError(
        f"{told} ({reason}). {cure}; smaller --size, --precision bf16 or a smaller network need less too. "
        "Start again with another --out."
    ) from error


def _in_pieces(training: Training) -> str:
    """The option, if there is one, with which a step is no single graph."""
    return "micro_batch" if training.micro_batch else "recompute" if training.recompute else ""


LONG = 900.0  # seconds: shorter runs would lose to the compiler what they gain
MANY = 1000  # steps: with fewer it is not even asked how long they take


def chosen(job: Job, parts: Assembled, device: str, display: Display) -> tuple[Execution, dict[str, float]]:
    """The fastest execution among those that the user leaves open, and the seconds per step of each."""
    training, images = job.training, len(parts.splits.train)
    base = Execution(device=device, threads=torch.get_num_threads(), folded=parts.teacher is not None)
    base, parted = replace(base, micro_batch=training.micro_batch, recompute=training.recompute), _in_pieces(training)
    options = candidates(base, training.precision, training.channels_last)
    best, timed = options[0], dict[str, float]()
    size, steps = min(training.batch_size, images), training.epochs * (images // min(training.batch_size, images))
    measured = (parts.student, parts.teacher, parts.plan, size // launched().size, parts.shape)
    open_end = training.compiled is None and not parted and steps >= MANY and has_compiler()
    if len(options) > 1 or open_end:
        try:
            best, timed = fastest(options, *measured, vary_threads=training.threads is None)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            return smaller(job, parts, options[0], error, display), {}
        torch.set_num_threads(best.threads)
    others, said = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in timed.items()), ""
    if open_end and (left := min(timed.values()) * steps) < LONG:
        said = f"Not compiled: {left / 60:.0f} minutes of training are too short to gain by it."
    elif open_end:
        best, tried, failed = compiled(best, *measured)
        said = "; ".join([*(f"{name} {seconds * 1000:.0f} ms" for name, seconds in tried.items()), failed]).rstrip("; ")
        said, timed = f"With and without the compiler: {said}.", {**timed, **tried}
    elif training.compiled and parted:
        said = f"With {parted} a step runs in pieces, and is not compiled."
    elif training.compiled:
        best = replace(best, compiled=has_compiler())
        said = "" if best.compiled else "There is no C++ compiler on this machine, so the step is not compiled."
    threads = f"{best.threads} thread{'' if best.threads == 1 else 's'}"
    display.note(f"{device}, {threads}: {title(best)}" + (f" (an eager step: {others})" if others else ""))
    if said:
        display.note(said)
    return best, timed
