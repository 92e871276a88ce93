"""What a distillation would be, before any time is spent on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from sskd.data.streams import Stream
from sskd.errors import UserError
from sskd.jobs.assemble import Prepared, planned, prepare
from sskd.jobs.cost import Decoding, Hours, Stepping, decoding, hours, stepping
from sskd.jobs.job import Job
from sskd.jobs.machine import may_capture
from sskd.jobs.small import refuse_small_batches
from sskd.jobs.teachers import pick_device
from sskd.memory import peak_memory
from sskd.methods import METHODS
from sskd.methods.find import find_method
from sskd.methods.options import check_options
from sskd.methods.plan import Plan
from sskd.train.step import Execution, Precision
from sskd.train.trial import Timed, time_step


@dataclass(frozen=True)
class StageCost:
    """A stage, and what one step of it takes here."""

    name: str
    epochs: int
    images: int  # of an epoch
    steps: int
    trained: int  # parameters
    terms: dict[str, float]  # weights
    taps: dict[str, tuple[str, ...]]  # read of each side
    shared: bool
    step: Stepping | None = None  # None where it was not measured, as the others
    decoding: Decoding | None = None  # or where there is none
    hours: Hours | None = None


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
            plan = planned(job, parts, name)
            refuse_small_batches(name, job.training, len(parts.splits.train), parts.work(plan))
            plans[name] = plan
        except UserError as error:
            misfits[name] = str(error)
    execution = _execution(job) if measure else None
    decoded = _decodings(job, parts, plans, execution) if execution else {}
    stages = {name: _stages(job, parts, plan, execution, decoded) for name, plan in plans.items()}
    peak = peak_memory(execution.device) if execution else 0
    return Checked(parts, plans, misfits, stages, execution, peak)


def _execution(job: Job) -> Execution:
    """As a run would have it where nothing is left open; where it is, bf16 on a GPU and fp32 on a CPU."""
    training, device = job.training, pick_device(job.training.device)
    usual: Precision = "bf16" if device.startswith("cuda") else "fp32"
    precision = usual if training.precision == "auto" else training.precision
    return Execution(
        device,
        precision,
        training.channels_last is not False,
        captured=may_capture(training, device),
        micro_batch=training.micro_batch,
        recompute=training.recompute,
        threads=torch.get_num_threads(),
    )


def _crops(plan: Plan) -> int:
    return plan.views.views if plan.views.own_crop else 1


def _decodings(job: Job, parts: Prepared, plans: dict[str, Plan], execution: Execution) -> dict[int, Decoding | None]:
    """By the number of crops of an image, as the methods want them."""
    return {crops: decoding(job, parts, crops, execution.device) for crops in {*map(_crops, plans.values())}}


def _stages(
    job: Job, parts: Prepared, plan: Plan, execution: Execution | None, decoded: Mapping[int, Decoding | None]
) -> list[StageCost]:
    found, size = list[StageCost](), min(job.training.batch_size, len(parts.splits.train))
    for i, stage in enumerate(plan.stages):
        named = {"student": parts.student, **plan.modules, **{name: term for name, (_, term) in stage.loss.items()}}
        images = len(parts.splits.full if stage.shared and job.teacher_data == "full" else parts.splits.train)
        taps = {
            side: tuple(dict.fromkeys(tap for _, term in stage.loss.values() for tap in getattr(term, f"{side}_taps")))
            for side in ("student", "teacher")
        }
        cost = StageCost(
            stage.name,
            stage.epochs,
            images // size * size,
            images // size,
            sum(p.numel() for name in stage.trains for p in named[name].parameters()),
            {name: weight for name, (weight, _) in stage.loss.items()},
            taps,
            stage.shared,
        )
        found.append(_measured(cost, job, parts, plan, i, execution, decoded[_crops(plan)]) if execution else cost)
    return found


def _measured(
    cost: StageCost,
    job: Job,
    parts: Prepared,
    plan: Plan,
    which: int,
    execution: Execution,
    decoded: Decoding | None,
) -> StageCost:
    size = min(job.training.batch_size, len(parts.splits.train))

    def timed(count: int, evaluating: bool) -> Timed:
        return time_step(execution, parts.work(plan, count), repeats=1, which=which, evaluating=evaluating)

    step, training, evaluation = stepping(timed, size), job.training, parts.splits.evaluation.values()
    counted = all(one.counted for one in evaluation if isinstance(one, Stream))
    evaluated = sum(len(one) for one in evaluation) if counted else None
    length = (cost.images, size, evaluated, cost.epochs, training.evaluate_every)
    return replace(cost, step=step, decoding=decoded, hours=hours(step, decoded, *length, execution.device))
