"""One training from its arguments to its finished run directory."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sskd.curves import with_curves
from sskd.data.crops import Resized
from sskd.data.decoded import default_workers
from sskd.data.images import Images
from sskd.data.prepare import make_feed
from sskd.environment import environment
from sskd.escaping import encoded
from sskd.files import alone_in, read_json, write_atomic
from sskd.jobs.assemble import Assembled, assemble
from sskd.jobs.card import model_card
from sskd.jobs.job import Job, usual_arguments
from sskd.jobs.labels import keep_labels, stated_labels
from sskd.jobs.machine import asked, chosen, own_device, resumed
from sskd.jobs.room import NoRoom, fitting, smaller, with_room
from sskd.jobs.teachers import pick_device
from sskd.methods.find import find_method
from sskd.methods.options import INTRODUCED, as_begun, check_options, complete
from sskd.models.checkpoints import save_network
from sskd.models.fold import inference_copy
from sskd.models.zoo import resolve
from sskd.progress import Display
from sskd.run_files import read_result
from sskd.runs import Run, SharedCache
from sskd.train.distributed import World, join, local_device, losses_explained, neighbours, parted, refuse_uneven
from sskd.train.loop import Data, Schedule, Trainer
from sskd.train.protocols import Keeper, Listener, Record, Shared, Silent
from sskd.train.step import Execution


def execute(job: Job, display: Display) -> Record:
    """Train, or continue, and return the result; a finished run is left as it is.

    Under torchrun all of its processes train this one run together; the first reads, writes and reports.

    Raises:
        UserError: anything about the arguments, the data, the teacher or the machine that a user can put right.
    """
    training = job.training
    device = local_device(pick_device(training.device))
    world = join(device, training.batch_size, training.relations, training.batch_norm)
    with parted(), losses_explained(world.size):
        return _execute(job, device, world, display)


def _execute(job: Job, device: str, world: World, display: Display) -> Record:
    check_options(find_method(job.method), job.method, job.options)
    run = Run(job.out, display.note)
    begun = world.agreed(run.config() if world.first else None)
    if begun is not None:
        if world.first:
            refuse_changed(job)
        job = _as_begun(job, begun)
        if (result := world.agreed(run.result() if world.first else None)) is not None:
            display.note(f"{job.out} is finished already; nothing to do.")
            return dict(result)
        if world.first:
            run.refuse_edited()
    if "student" not in job.modules and job.init is None:
        resolve(job.network)
    if job.training.threads is not None:
        torch.set_num_threads(job.training.threads)
    parts = assemble(job, (begun or {}).get("data", {}).get("decode"))
    refuse_uneven(len(parts.splits.train), job.training.batch_size, world)
    for note in parts.notes:
        display.note(note)
    with alone_in(job.out, display.note) if world.first else nullcontext():
        return _train(job, run, parts, device, world, display)


def refuse_changed(job: Job) -> None:
    """Refuse a job whose run was begun with other arguments. A teacher may lie elsewhere than then: its weights count.

    Raises:
        UserError: lists what differs.
    """
    run, method = Run(job.out), find_method(job.method)
    begun = run.config() or {}
    job = _as_begun(job, begun)
    options = {**complete(method, {}, job.training.epochs), **INTRODUCED.get(job.method, {})}
    usual = {**usual_arguments(), "options": options}
    # It goes on with the threads it began with; what memory asks for may change, and changes no loss.
    but = ["training.threads", "training.captured", "training.micro_batch", "training.recompute"]
    if job.teacher and _same_weights(job.teacher.place, begun):
        but.append("teacher.place")
    # Naming a folder's function is one of two ways to trust it; which network it is, the folder says.
    begun = (run.config() or {}).get("arguments", {})
    now = {"teacher": job.teacher, "init": job.init}
    for name, brought in now.items():
        if brought and (brought.architecture is None or (begun.get(name) or {}).get("architecture") is None):
            but.append(f"{name}.architecture")
    run.same(_arguments(job), "arguments", but, usual)


def _same_weights(place: str, config: Mapping[str, Any]) -> bool:
    """Whether the teacher's run now at `place` ended with the weights that a run with this config was taught by."""
    result, taught = Path(place) / "result.json", config.get("teacher", {}).get("weights")
    return taught is not None and result.is_file() and read_result(result).get("weights") == taught


def _train(job: Job, run: Run, parts: Assembled, device: str, world: World, display: Display) -> Record:
    told = {"labels": stated_labels(job, parts.splits)}
    config = {"arguments": _arguments(job), **parts.config(), **told, "environment": environment()}
    world.refuse_others({name: config[name] for name in ("data", "teacher")})
    execution = _agreed_execution(job, run, config, parts, device, display) if world.first else None
    if world.first:
        keep_labels(job.out, parts.splits)
    execution = own_device(world.agreed(execution), device, world)
    torch.set_num_threads(execution.threads)
    trainer: Trainer | None = None
    while trainer is None:
        trainer = _trainer(job, run, config, parts, execution, world, display)
        if world.size > 1:
            execution = trainer.execution = fitting(job, parts, trainer, display)
            _keep_execution(run, execution, world)
        if isinstance(failed := with_room(trainer.fit), NoRoom):
            trainer = None
            execution = smaller(job, parts, execution, failed, display)
            _keep_execution(run, execution, world)
            parts = assemble(job, parts.decode)  # as at the start: a step that failed may have left its traces
    return dict(world.agreed(_finish(job, run, trainer, parts) if world.first else None))


def _keep_execution(run: Run, execution: Execution, world: World, **more: Any) -> None:
    if world.first and run.config() != (config := {**(run.config() or {}), "execution": asdict(execution), **more}):
        run.start(config)


def _agreed_execution(
    job: Job, run: Run, config: dict[str, Any], parts: Assembled, device: str, display: Display
) -> Execution:
    """How the run began; a new one is begun."""
    if run.config() is not None:
        run.same(config["data"], "data")
        run.same(config["teacher"], "teacher", ("normalisation_from",))  # a path; mean and std are compared
        execution = resumed(run, job.training, device, display)
        _keep_execution(run, execution, World(), asked=asked(job.training))
        return execution
    if parts.decode == "workers" and job.reading.unreadable == "refuse":
        parts.splits.refuse_unreadable()
    execution, timed = chosen(job, parts, device, display)
    config = {**config, "asked": asked(job.training)}
    run.start({**config, "execution": asdict(execution), "measured_seconds_per_step": timed})
    return execution


def _trainer(
    job: Job,
    run: Run,
    config: dict[str, Any],
    parts: Assembled,
    execution: Execution,
    world: World,
    display: Display,
) -> Trainer:
    training, splits, crops = job.training, parts.splits, parts.crops
    device = torch.device(execution.device)
    workers = default_workers(neighbours()) if training.workers is None else training.workers
    feed = partial(make_feed, crops=crops, device=device, workers=workers, share=world.share)
    train = feed(splits.train)
    alike = job.teacher_data == "subset" or splits.share is None, job.teacher_labels == "noisy" or splits.clean is None
    seen = splits.train if all(alike) else splits.seen(job.teacher_data, job.teacher_labels)
    full = train if all(alike) else feed(seen)
    evaluation = {name: feed(images) for name, images in splits.evaluation.items()}
    schedule = Schedule(training.batch_size, training.seed, training.evaluate_every, training.checkpoint_every)
    address = {
        "teacher": [config["teacher"].get(key) for key in ("weights", "size", "order")],
        "taps": dict(job.teacher_taps),
        "modules": {name: str(module) for name, module in parts.plan.modules.items()},
        "data": seen.fingerprint(),
        "views": parts.plan.views.name,
        "crops": config["data"]["crops"],
        "decode": parts.decode,
        "batch_size": training.batch_size,
        "precision": execution.precision,
    }
    data = Data(train, full, evaluation)
    if not world.first:
        silent = Silent()
        told: tuple[Keeper, Shared, Listener] = (silent, silent, silent)
    else:
        shared = SharedCache(job.cache or job.out.parent / "cache", address, job.out, display.note)
        listener = with_curves(display, job.out / "tensorboard") if training.tensorboard else display
        told = (run, shared, listener)
    teacher = parts.teacher
    if teacher and execution.folded:
        teacher = inference_copy(teacher, parts.shape, execution.dtype)
    return Trainer(parts.student, teacher, parts.plan, data, schedule, execution, *told, world=world)


def _finish(job: Job, run: Run, trainer: Trainer, parts: Assembled) -> Record:
    best, student = trainer.best.get("record"), parts.student
    state = trainer.best["student"] if best else student.backbone.cpu().state_dict()
    student.crop_pct = _crop_pct(parts)
    save_network(student, state, run.student, parts.shape)
    student.backbone.load_state_dict(state)
    records = run.records()
    result = {
        "network": student.architecture,
        "method": job.method,
        "seed": job.training.seed,
        "parameters": sum(p.numel() for p in student.parameters()),
        "seconds": round(sum(record.get("seconds", 0) + record.get("evaluation_seconds", 0) for record in records), 1),
        "last": trainer.last,
        "best": best,
        "student": "best epoch on validation" if best else "last epoch",
        "classes": list(student.class_names),
        "normalisation_from": student.normalisation.origin,
        "weights": student.weights_hash(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    card = model_card(run.config() or {}, result, read_json(run.student / "config.json"))
    write_atomic(run.student / "README.md", encoded(card))
    run.finish(result)
    return result


def _crop_pct(parts: Assembled) -> float:
    """Which part of the shorter side is seen in evaluation."""
    crops, test = parts.crops, parts.splits.evaluation["test"]
    if not isinstance(crops, Resized):
        return 1.0
    return crops.size / (test.pixels.shape[-1] if isinstance(test, Images) else crops.stored)


def _arguments(job: Job) -> dict[str, Any]:
    """The job's arguments with all of the method's options: a later version may have other defaults."""
    return {**job.arguments(), "options": complete(find_method(job.method), job.options, job.training.epochs)}


def _as_begun(job: Job, config: Mapping[str, Any]) -> Job:
    """The job with the lengths of stages that its run was begun with, where they are not given."""
    begun = config.get("arguments", {}).get("options", {})
    return replace(job, options=as_begun(job.method, find_method(job.method), job.options, begun)) if config else job
