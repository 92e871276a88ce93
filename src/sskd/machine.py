"""How a run uses the machine at hand: measured when it starts, kept when it goes on."""

from dataclasses import replace

import torch

from sskd.assemble import Assembled
from sskd.environment import processor
from sskd.errors import UserError
from sskd.job import Job
from sskd.progress import Display
from sskd.runs import Run
from sskd.teachers import pick_device
from sskd.train.choose import candidates, fastest, has_compiler, title
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
    if (began := config.get("environment", {}).get("processor")) != processor():
        display.note(f"This run began on {began}; here is {processor()}, so its numbers may differ in the last digits.")
    if torch.get_num_threads() != execution.threads:
        display.note(f"This run began with {execution.threads} threads; it goes on with as many.")
    torch.set_num_threads(execution.threads)
    return execution


def chosen(job: Job, parts: Assembled, device: str, display: Display) -> tuple[Execution, dict[str, float]]:
    """The fastest execution among those that the user leaves open, and the seconds per step of each."""
    training = job.training
    base = Execution(device=device, threads=torch.get_num_threads())
    options = candidates(base, training.precision, training.channels_last)
    best, timed = options[0], dict[str, float]()
    if len(options) > 1:
        size, vary = min(training.batch_size, len(parts.splits.train)), training.threads is None
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
