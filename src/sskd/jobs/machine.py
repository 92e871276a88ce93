"""How a run uses the machine at hand: measured when it starts, kept when it goes on."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sskd.environment import processor
from sskd.errors import UserError
from sskd.files import read_json
from sskd.jobs.assemble import Assembled
from sskd.jobs.job import Job
from sskd.jobs.room import NoRoom, smaller, stepped, with_room
from sskd.jobs.teachers import pick_device
from sskd.progress import Display
from sskd.run_files import START_ANEW
from sskd.runs import Run
from sskd.settings import Training
from sskd.train.choose import candidates, compiled, fastest, has_compiler, title
from sskd.train.distributed import World, launched
from sskd.train.step import Execution, Precision
from sskd.train.trial import Work
from sskd.validation import convert


def resumed(run: Run, training: Training, device: str, display: Display) -> Execution:
    """The execution that the run began with, but for other ways to take less memory; says what is another here.

    Raises:
        UserError: the config does not say it.
    """
    config = run.config() or {}
    execution = convert(config.get("execution"), Execution, f"{run.path}/config.json, execution", START_ANEW)
    if torch.device(execution.device).type != torch.device(device).type:
        display.note(f"This run began on {pick_device(execution.device)}; it goes on there.")
    else:
        execution = replace(execution, device=device)
    if (began := config.get("environment", {}).get("processor")) != processor():
        display.note(f"This run began on {began}; here is {processor()}, so its numbers may differ in the last digits.")
    if torch.get_num_threads() != execution.threads:
        display.note(f"This run began with {execution.threads} threads; it goes on with as many.")
    torch.set_num_threads(execution.threads)
    before = config.get("asked") or config.get("arguments", {}).get("training", {})
    changed = _with_less_memory(execution, training, before)
    for name in ("micro_batch", "recompute"):
        if (then := getattr(execution, name)) != (now := getattr(changed, name)):
            display.note(f"This run went so far with {name} {then}; from here on it is {now}.")
    if changed.captured and not training.captured:
        display.note("This run replayed CUDA graphs so far; from here on it does not.")
        changed = replace(changed, captured=False)
    return changed


def run_path(place: str) -> Path:
    """The folder of the run that `place` names: the run's own, its student's, or an address (local-dir:) of either."""
    path = Path(place.removeprefix("local-dir:"))
    return path.parent if path.name == "student" and not (path / "student").is_dir() else path


def as_measured(place: str, device: str) -> Execution:
    """How the run at `place` measured its student, on this device: in which precision and memory format.

    In fp32 where the place is none that says it: another folder, a file or a name.

    Raises:
        UserError: the run's config is damaged.
    """
    file = run_path(place) / "config.json"
    config = read_json(file) if file.is_file() else {}
    if "execution" not in config:
        return Execution(device)
    where = f"{file}, execution"
    stated: Mapping[str, Any] = convert(config["execution"], dict[str, Any], where)
    kind: Any = Precision  # a Literal, which is no type to mypy
    precision: Precision = convert(stated.get("precision", "fp32"), kind, f"{where}, precision")
    return Execution(device, precision, stated.get("channels_last") is True)


def asked(training: Training) -> dict[str, Any]:
    """What the user says about memory. What a run then takes may be less: it is halved where there is no room."""
    return {"micro_batch": training.micro_batch, "recompute": training.recompute}


def own_device(execution: Execution, device: str, world: World) -> Execution:
    """The execution on this process's device, if it is of the kind on which the run began; else on that kind.

    Raises:
        UserError: it is of another kind, and several processes train, which then cannot reach each other.
    """
    kind, here = torch.device(execution.device).type, torch.device(device).type
    if kind == here:
        return replace(execution, device=device)
    if world.size == 1:
        return execution
    hide = "with CUDA_VISIBLE_DEVICES= before it, the same command goes on" if kind == "cpu" else "go on with GPUs"
    raise UserError(f"This run began on {kind}, and its {world.size} processes now are on {here}: {hide}.")


def _with_less_memory(execution: Execution, training: Training, before: Mapping[str, Any]) -> Execution:
    """Another micro-batch, or other recomputing, where the user now asks for others than `before`."""
    now = asked(training)
    execution = replace(execution, **{name: now[name] for name in now if now[name] != before.get(name, now[name])})
    in_pieces = execution.micro_batch or execution.recompute
    return execution.eager if in_pieces else execution


def _in_pieces(training: Training) -> str:
    """The option, if there is one, with which a step is no single graph."""
    return "micro_batch" if training.micro_batch else "recompute" if training.recompute else ""


def may_capture(training: Training, device: str) -> bool:
    """Whether a step can be one CUDA graph, as far as the settings say."""
    return training.captured and device.startswith("cuda") and launched().size == 1 and not _in_pieces(training)


LONG = 900.0  # seconds: shorter runs would lose to the compiler what they gain
MANY = 1000  # steps: with fewer it is not even asked how long they take


def chosen(job: Job, parts: Assembled, device: str, display: Display) -> tuple[Execution, dict[str, float]]:
    """The fastest execution among those that the user leaves open, and the seconds per step of each."""
    training, images = job.training, len(parts.splits.train)
    base = Execution(device=device, threads=torch.get_num_threads(), folded=parts.teacher is not None)
    base, parted = replace(base, micro_batch=training.micro_batch, recompute=training.recompute), _in_pieces(training)
    base = replace(base, captured=may_capture(training, device))
    options = candidates(base, training.precision, training.channels_last)
    best, timed, refused = options[0], dict[str, float](), ""
    size, steps = min(training.batch_size, images), training.epochs * (images // min(training.batch_size, images))
    work = Work(parts.student, parts.teacher, parts.plan, size // launched().size, parts.shape)
    open_end = training.compiled is None and not parted and steps >= MANY and has_compiler()
    if len(options) > 1 or open_end or base.captured:
        vary = training.threads is None
        found = with_room(partial(fastest, options, work, vary_threads=vary))
        if isinstance(found, NoRoom):  # one precision may fit where another does not
            fit = [one for one in options if not isinstance(with_room(partial(stepped, one, job, parts)), NoRoom)]
            if not fit:
                least = options[-1 if device.startswith("cuda") else 0]
                return (least if launched().size > 1 else smaller(job, parts, least, found, display)), {}
            found = fastest(fit, work, vary_threads=vary)
        best, timed, refused = found
        torch.set_num_threads(best.threads)
    if refused:
        display.note(f"No CUDA graph is made of a step ({refused}): steps are run as they come.")
    others, said = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in timed.items()), ""
    if open_end and (left := min(timed.values()) * steps) < LONG:
        said = f"Not compiled: {left / 60:.0f} minutes of training are too short to gain by it."
    elif open_end:
        best, tried, failed = compiled(best, work)
        said = "; ".join([*(f"{name} {seconds * 1000:.0f} ms" for name, seconds in tried.items()), failed]).rstrip("; ")
        said, timed = f"With and without the compiler: {said}.", {**timed, **tried}
    elif training.compiled and parted:
        said = f"With {parted} a step runs in pieces, and is not compiled."
    elif training.compiled:
        best = replace(best, compiled=has_compiler())
        said = "" if best.compiled else "There is no C++ compiler on this machine, so the step is not compiled."
    threads = f"{best.threads} thread{'' if best.threads == 1 else 's'}"
    display.note(f"{device}, {threads}: {title(best)}" + (f" (a step: {others})" if others else ""))
    if said:
        display.note(said)
    return best, timed
