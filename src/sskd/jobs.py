"""One training from its arguments to its finished run directory."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from sskd.curves import with_curves
from sskd.data import load_source
from sskd.data.batches import Resident
from sskd.data.source import Images, Source, info
from sskd.data.subsets import label_fraction, validation_split
from sskd.environment import environment, processor
from sskd.errors import UserError, unknown
from sskd.files import alone_in
from sskd.methods import METHODS
from sskd.methods.options import check_options
from sskd.methods.plan import Pair, Plan
from sskd.models.checkpoints import save_network
from sskd.models.network import Network, Normalisation, create_network
from sskd.models.zoo import resolve
from sskd.progress import Display
from sskd.runs import Run, SharedCache
from sskd.settings import Training
from sskd.teachers import Teacher, load_teacher, pick_device
from sskd.train.choose import candidates, fastest, has_compiler, title
from sskd.train.loop import Data, Schedule, Trainer
from sskd.train.protocols import Record
from sskd.train.seeds import mix
from sskd.train.step import Execution
from sskd.views.augment import Augment


@dataclass(frozen=True)
class Job:
    """A training, described by plain values."""

    out: Path
    network: str
    data: str
    method: str
    training: Training
    teacher: Teacher | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fraction: float = 1.0
    teacher_data: Literal["full", "subset"] = "full"
    cache: Path | None = None

    def arguments(self) -> dict[str, Any]:
        """What must be equal for a run to be continued. Where it lies and where it is shown do not count."""
        values = asdict(self)
        for name in ("out", "cache"):
            del values[name]
        for name in ("device", "tensorboard"):
            del values["training"][name]
        return values


@dataclass(frozen=True)
class Splits:
    """The images of a run, after the cuts."""

    full: Images  # all training images but the validation split
    train: Images  # what the student sees
    evaluation: dict[str, Images]


def execute(job: Job, display: Display) -> Record:
    """Train, or continue, and return the result; a finished run is left as it is.

    Raises:
        UserError: anything about the arguments, the data, the teacher or the machine that a user can put right.
    """
    run = Run(job.out)
    if run.config() is not None:
        run.same(job.arguments(), "arguments", but=("training.threads",))  # it goes on with those it began with
        if (result := run.result()) is not None:
            display.note(f"{job.out} is finished already; nothing to do.")
            return result
    if job.method not in METHODS:
        raise unknown("method", job.method, METHODS)
    check_options(METHODS[job.method], job.method, job.options)
    resolve(job.network)
    source = load_source(job.data, job.training.square)
    splits = cut(source, job)
    return _train(job, run, source, splits, display)


def cut(source: Source, job: Job) -> Splits:
    """Cut the validation images off, then take the student's share of the rest."""
    seed, names = job.training.split_seed, source.class_names
    train_index, validation_index = validation_split(source.train.labels, job.training.validation, seed, names)
    full = source.train.take(train_index)
    evaluation = {"test": source.test}
    if len(validation_index):
        evaluation = {"validation": source.train.take(validation_index), **evaluation}
    subset = full.take(label_fraction(full.labels, job.fraction, seed, names)) if job.fraction != 1 else full
    return Splits(full, subset, evaluation)


def _train(job: Job, run: Run, source: Source, splits: Splits, display: Display) -> Record:
    training, data = job.training, info(source, splits.train)
    device = pick_device(training.device)
    if training.padding >= data.image_shape[-1]:
        raise UserError(
            f"padding {training.padding} can shift images of {data.image_shape[-1]} pixels out of sight; "
            "the published recipes pad 4 pixels around 32."
        )
    if training.threads is not None:
        torch.set_num_threads(training.threads)
    torch.manual_seed(mix(training.seed, "weights"))
    normalisation = Normalisation(source.mean, source.std, f"the data set {source.name}")
    student = create_network(job.network, source.class_names, data.image_shape[0], normalisation)
    teacher = load_teacher(job.teacher, source, data.image_shape[0]) if job.teacher else None
    pair = Pair(student.shapes(data.image_shape), teacher.shapes(data.image_shape) if teacher else None, data)
    optim = training.optim if training.optim.lr else replace(training.optim, lr=published_rate(student.architecture))
    plan = METHODS[job.method](pair, epochs=training.epochs, optim=optim, **job.options)
    config: dict[str, Any] = {
        "arguments": job.arguments(),
        "data": _describe(source, splits),
        "teacher": _describe_teacher(teacher),
        "optim": asdict(optim),
        "class_names": list(source.class_names),
        "environment": environment(),
    }
    with alone_in(job.out):
        if run.config() is not None:
            run.same(config["data"], "data")
            run.same(config["teacher"], "teacher")
            execution = _resumed(run, device, display)
        else:
            execution, timed = _choose(job, student, teacher, plan, device, len(splits.train), data.image_shape)
            display.note(_explain(execution, timed))
            if job.training.compiled and not execution.compiled:
                display.note("There is no C++ compiler on this machine, so the step is not compiled.")
            run.start({**config, "execution": asdict(execution), "measured_seconds_per_step": timed})
        trainer = _trainer(job, run, config, splits, student, teacher, plan, execution, display)
        trainer.fit()
        return _finish(job, run, trainer, student, data.image_shape)


def published_rate(architecture: str) -> float:
    """The CIFAR-100 recipe's learning rate: 0.01 for MobileNetV2 and the ShuffleNets, 0.05 for all others."""
    return 0.01 if architecture.startswith(("cifar_mobilenet", "cifar_shufflenet")) else 0.05


def _describe(source: Source, splits: Splits) -> dict[str, Any]:
    return {
        "name": source.name,
        "train_images": len(splits.train),
        "teacher_images": len(splits.full),
        **{f"{name}_images": len(images) for name, images in splits.evaluation.items()},
        "train_fingerprint": splits.train.fingerprint(),
        "mean": list(source.mean),
        "std": list(source.std),
    }


def _describe_teacher(teacher: Network | None) -> dict[str, Any]:
    if teacher is None:
        return {}
    return {
        "architecture": teacher.architecture,
        "weights": teacher.weights_hash(),
        "mean": list(teacher.normalisation.mean),
        "std": list(teacher.normalisation.std),
        "normalisation_from": teacher.normalisation.origin,
    }


def _resumed(run: Run, device: str, display: Display) -> Execution:
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


def _choose(
    job: Job,
    student: Network,
    teacher: Network | None,
    plan: Plan,
    device: str,
    images: int,
    shape: tuple[int, int, int],
) -> tuple[Execution, dict[str, float]]:
    training = job.training
    base = Execution(device=device, threads=torch.get_num_threads())
    options = candidates(base, training.precision, training.channels_last)
    best = options[0]
    timed: dict[str, float] = {}
    if len(options) > 1:
        size, vary = min(training.batch_size, images), training.threads is None
        best, timed = fastest(options, student, teacher, plan, size, shape, vary_threads=vary)
        torch.set_num_threads(best.threads)
    # Timed eager: compiling every candidate would cost more than it saves. Without a compiler eager stays.
    return replace(best, compiled=training.compiled and has_compiler()), timed


def _explain(execution: Execution, timed: dict[str, float]) -> str:
    threads = f"{execution.threads} thread{'' if execution.threads == 1 else 's'}"
    chosen = f"{execution.device}, {threads}: {title(execution)}"
    others = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in timed.items())
    return f"{chosen} (an eager step: {others})" if others else chosen


def _trainer(
    job: Job,
    run: Run,
    config: dict[str, Any],
    splits: Splits,
    student: Network,
    teacher: Network | None,
    plan: Plan,
    execution: Execution,
    display: Display,
) -> Trainer:
    training = job.training
    device = torch.device(execution.device)
    train = Resident.on(splits.train, device)
    full = train if job.teacher_data == "subset" or splits.full is splits.train else Resident.on(splits.full, device)
    evaluation = {name: Resident.on(images, device) for name, images in splits.evaluation.items()}
    seen = splits.train if full is train else splits.full
    schedule = Schedule(
        training.batch_size, training.seed, training.evaluate_every, Augment(training.flip, training.padding)
    )
    address = {
        "teacher": config["teacher"].get("weights"),
        "data": seen.fingerprint(),
        "views": plan.views.name,
        "augment": asdict(schedule.augment),
        "batch_size": training.batch_size,
        "precision": execution.precision,
    }
    shared = SharedCache(job.cache or job.out.parent / "cache", address, job.out)
    listener = with_curves(display, job.out / "tensorboard") if training.tensorboard else display
    return Trainer(student, teacher, plan, Data(train, full, evaluation), schedule, execution, run, shared, listener)


def _finish(job: Job, run: Run, trainer: Trainer, student: Network, shape: tuple[int, int, int]) -> Record:
    best = trainer.best.get("record")
    state = trainer.best["student"] if best else student.backbone.cpu().state_dict()
    save_network(student, state, run.student, shape)
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
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    run.finish(result)
    return result
