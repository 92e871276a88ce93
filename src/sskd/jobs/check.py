"""What a distillation would be, before any time is spent on it."""

from dataclasses import dataclass, field

import torch

from sskd.errors import UserError
from sskd.jobs.assemble import Prepared, planned, prepare
from sskd.jobs.job import Job
from sskd.jobs.teachers import pick_device
from sskd.memory import peak_memory
from sskd.methods import METHODS
from sskd.methods.find import find_method
from sskd.methods.options import check_options
from sskd.methods.plan import Plan
from sskd.train.choose import time_step
from sskd.train.step import Execution, Precision


@dataclass(frozen=True)
class StageCost:
    """A stage, and what one step of it takes here."""

    name: str
    epochs: int
    steps: int  # in an epoch
    trained: int  # parameters
    terms: dict[str, float]  # weights
    taps: dict[str, tuple[str, ...]]  # read of each side
    seconds: float | None  # a step; None where it was not measured
    shared: bool

    @property
    def hours(self) -> float | None:
        """The whole stage, without evaluation."""
        return None if self.seconds is None else self.seconds * self.steps * self.epochs / 3600


@dataclass(frozen=True)
class Checked:
    """What was found. `misfits`: for each method that was asked for and does not fit, why and what to do."""

    parts: Prepared
    plans: dict[str, Plan]
    misfits: dict[str, str]
    stages: dict[str, list[StageCost]] = field(default_factory=dict)
    execution: Execution | None = None
    peak_mib: int = 0


def check_distillation(job: Job, measure: bool) -> Checked:
    """Build everything that the job needs and, to measure, make steps on dummy images. `job.method` may be "all".

    Raises:
        UserError: data or networks that cannot be read; a method that does not exist, or options that it has not.
    """
    names = [*METHODS] if job.method == "all" else [job.method]
    if job.method == "all" and job.options:
        raise UserError("--options belong to one method: name it with --method, or leave them out.")
    for name in names:
        check_options(find_method(name), name, job.options)
    if job.training.threads is not None:
        torch.set_num_threads(job.training.threads)
    parts, plans, misfits = prepare(job), dict[str, Plan](), dict[str, str]()
    for name in names:
        try:
            plans[name] = planned(job, parts, name)
        except UserError as error:
            misfits[name] = str(error)
    execution = _execution(job) if measure else None
    stages = {name: _stages(job, parts, plan, execution) for name, plan in plans.items()}
    peak = peak_memory(execution.device) if execution else 0
    return Checked(parts, plans, misfits, stages, execution, peak)


def _execution(job: Job) -> Execution:
    """As a run would have it where nothing is left open; where it is, bf16 on a GPU and fp32 on a CPU."""
    training, device = job.training, pick_device(job.training.device)
    usual: Precision = "bf16" if device.startswith("cuda") else "fp32"
    precision = usual if training.precision == "auto" else training.precision
    return Execution(device, precision, training.channels_last is not False, threads=torch.get_num_threads())


def _stages(job: Job, parts: Prepared, plan: Plan, execution: Execution | None) -> list[StageCost]:
    found, size = list[StageCost](), min(job.training.batch_size, len(parts.splits.train))
    for i, stage in enumerate(plan.stages):
        named = {"student": parts.student, **plan.modules, **{name: term for name, (_, term) in stage.loss.items()}}
        images = len(parts.splits.full if stage.shared and job.teacher_data == "full" else parts.splits.train)
        taps = {
            side: tuple(dict.fromkeys(tap for _, term in stage.loss.values() for tap in getattr(term, f"{side}_taps")))
            for side in ("student", "teacher")
        }
        seconds = None
        if execution is not None:
            shape = parts.pair.data.image_shape
            seconds = time_step(execution, parts.student, parts.teacher, plan, size, shape, repeats=2, which=i)
        found.append(
            StageCost(
                stage.name,
                stage.epochs,
                images // size,
                sum(p.numel() for name in stage.trains for p in named[name].parameters()),
                {name: weight for name, (weight, _) in stage.loss.items()},
                taps,
                seconds,
                stage.shared,
            )
        )
    return found
