"""What a job is made of: its images, its networks, its plan."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from sskd.data.crops import Crops, Resized
from sskd.data.prepare import choose_crops, fits, image_shape
from sskd.data.source import DataInfo, Source, info
from sskd.data.splits import Splits, cut
from sskd.data.streams import Stream
from sskd.errors import UserError
from sskd.importing import user_code
from sskd.jobs.job import Job
from sskd.jobs.small import refuse_small_batches
from sskd.jobs.teachers import describe, fresh, load_teacher
from sskd.methods import METHODS
from sskd.methods.find import find_method
from sskd.methods.options import check_options
from sskd.methods.plan import Optim, Pair, Plan
from sskd.models.folders import is_importable
from sskd.models.network import Network
from sskd.models.taps import parse_taps
from sskd.seeds import mix
from sskd.train.trial import Work

READ_BACK = (
    "{0} is code of your own: commands that read the finished run execute it again, and so want it named (as the "
    "architecture) or --trust_code true."
)


@dataclass(frozen=True)
class Assembled:
    """A job's parts, ready to run."""

    source: Source
    splits: Splits
    crops: Crops
    shape: tuple[int, int, int]  # of the images that networks are given
    student: Network
    teacher: Network | None
    plan: Plan
    optim: Optim
    decode: str | None  # "once" or "workers"; None for images that are in memory anyway
    notes: tuple[str, ...]

    def config(self) -> dict[str, Any]:
        """What identifies data and teacher, and the optimiser as it was settled."""
        splits, source = self.splits, self.source
        counts = {f"{name}_images": len(images) for name, images in splits.evaluation.items()}
        return {
            "data": {
                "name": source.name,
                "train_images": len(splits.train),
                "teacher_images": len(splits.full),
                **counts,
                "train_fingerprint": splits.train.fingerprint(),
                "mean": list(source.mean),
                "std": list(source.std),
                "decode": self.decode,
                "crops": {"kind": type(self.crops).__name__.lower(), **asdict(self.crops)},  # type: ignore[call-overload]
            },
            "teacher": describe(self.teacher) if self.teacher else {},
            "optim": asdict(self.optim),
            "stages": [
                {
                    "name": stage.name,
                    "epochs": stage.epochs,
                    "trains": list(stage.trains),
                    "loss": {name: weight for name, (weight, _) in stage.loss.items()},
                }
                for stage in self.plan.stages
            ],
            "class_names": list(source.class_names),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Prepared:
    """What there is before a method has been asked: images and networks."""

    source: Source
    splits: Splits
    crops: Crops
    student: Network
    teacher: Network | None
    pair: Pair
    optim: Optim
    notes: tuple[str, ...]

    def work(self, plan: Plan, batch_size: int = 1) -> Work:
        """What steps of a plan can be tried of."""
        return Work(self.student, self.teacher, plan, batch_size, self.pair.data.image_shape)


def prepare(job: Job, source: Source | None = None) -> Prepared:
    """Read the data, if it is not given, build and load the networks.

    Raises:
        UserError: anything about the data or the networks that the user can put right.
    """
    training = job.training
    source = source or job.load_source()
    noise = training.noise, training.noise_kind
    splits = cut(source, training.validation, job.fraction, training.split_seed, training.per_class, *noise)
    crops = choose_crops(splits.full, training.crop, training.size, training.flip, training.padding, training.scale)
    shape = image_shape(splits.full, crops)
    torch.manual_seed(mix(training.seed, "weights"))
    taps = parse_taps(job.student_taps)
    student = fresh(job.network, source, shape, job.init, taps, job.modules.get("student"), job.trust_code)
    teacher, said = None, student.notes
    if is_importable(student.architecture):
        said += (READ_BACK.format(student.architecture),)
    if job.teacher:
        named, module = parse_taps(job.teacher_taps), job.modules.get("teacher")
        teacher, notes = load_teacher(job.teacher, source, shape, module, named, job.trust_code)
        said += notes
    apart = splits.share is not None and job.teacher_data == "full"
    among = (len(splits.full), splits.share) if apart else ()
    pair = pair_of(student, teacher, info(source, splits.train, shape, *among))
    student.check_training(shape)
    said = (*said, *student.tap_notes, *(teacher.tap_notes if teacher else ()))
    optim = training.optim if training.optim.lr is not None else replace(training.optim, lr=_usual_rate(student, job))
    return Prepared(source, splits, crops, student, teacher, pair, optim, (*source.notes, *splits.notes, *said))


def planned(job: Job, parts: Prepared, method: str) -> Plan:
    """A method's plan for what there is.

    Raises:
        UserError: options that the method does not have; networks or data that do not fit it.
    """
    make = find_method(method)
    check_options(make, method, job.options)  # those of a finished run come from its config.json
    torch.manual_seed(mix(job.training.seed, "method"))  # whatever was built before
    with user_code(f"The method {method} fails", "Mend it there.") if method not in METHODS else nullcontext():
        plan: object = make(parts.pair, epochs=job.training.epochs, optim=parts.optim, **job.options)
    if not isinstance(plan, Plan):
        raise UserError(
            f"The method {method} returned a {type(plan).__name__}; a method returns a sskd.methods.plan.Plan."
        )
    _refuse_stream(method, job.data, parts.splits, plan)
    return plan


def assemble(job: Job, decode: str | None) -> Assembled:
    """All that a job is made of. `decode` is what an interrupted run had settled on.

    Raises:
        UserError: anything about the data, the networks or the method that the user can put right.
    """
    parts = prepare(job)
    plan = planned(job, parts, job.method)
    refuse_small_batches(job.method, job.training, len(parts.splits.train), parts.work(plan))
    notes, splits, crops = (*parts.notes, *plan.notes), parts.splits, parts.crops
    if isinstance(crops, Resized):
        low, high = crops.scale
        notes = (
            *notes,
            f"Views are random boxes of {low:.0%} to {high:.0%} of the area, resized to {crops.size} pixels.",
        )
        splits, decode = _decoded(splits, crops, decode or job.training.decode)
        notes = (*notes, f"Photographs are decoded {_HOW[decode]}.") if decode else notes
    else:
        decode = None
    shape = parts.pair.data.image_shape
    return Assembled(parts.source, splits, crops, shape, parts.student, parts.teacher, plan, parts.optim, decode, notes)


_HOW = {
    "once": "once; the middle square of each is kept in memory, reduced to 8/7 of that",
    "workers": "by workers, anew in each epoch",
}


def _decoded(splits: Splits, crops: Resized, decode: str) -> tuple[Splits, str | None]:
    if not splits.encoded():
        return splits.stored(crops.stored), None
    decode = when_decoded(splits, crops, decode)
    return (splits.stored(crops.stored) if decode == "once" else splits), decode


def when_decoded(splits: Splits, crops: Crops, decode: str) -> str:
    """What `--decode auto` means for these images: "once" or by "workers"."""
    if decode == "auto":
        return "once" if fits([splits.full, *splits.evaluation.values()], crops) else "workers"
    return decode


def _refuse_stream(method: str, data: str, splits: Splits, plan: Plan) -> None:
    needing = [name for stage in plan.stages for name, (_, term) in stage.loss.items() if term.needs_index]
    if needing and isinstance(splits.train, Stream):
        raise UserError(
            f"The method {method} (its term {needing[0]}) remembers each training image by its number; "
            f"{data} is read as a stream, which has none. Leave --reading.stream out, or choose another method."
        )


def pair_of(student: Network, teacher: Network | None, data: DataInfo) -> Pair:
    """All that a method may know of its networks.

    Raises:
        UserError: a network that cannot take the data's images.
    """
    networks: dict[str, Network] = {"student": student} | ({"teacher": teacher} if teacher else {})
    shapes = {side: network.shapes(data.image_shape) for side, network in networks.items()}
    left_out = {side: network.left_out for side, network in networks.items()}

    def tail(side: str, tap: str, outputs: int) -> nn.Module:
        return networks[side].tail(tap, outputs)

    linear = {side: _linear(network) for side, network in networks.items()}
    branch_taps = {side: network.branch_taps for side, network in networks.items()}
    after = {side: network.after_stages for side, network in networks.items()}
    return Pair(shapes["student"], shapes.get("teacher"), data, left_out, tail, linear, branch_taps, after)


def _linear(network: Network) -> tuple[str, ...]:
    """The stages' `.pre` that are read where the stage itself is."""
    stages = {name: f"{name}.pre" for name in network.taps}
    return tuple(pre for name, pre in stages.items() if network.taps.get(pre) == network.taps[name])


def _usual_rate(student: Network, job: Job) -> float:
    """The CIFAR-100 recipe's rate: 0.01 for MobileNetV2 and the ShuffleNets, else 0.05; a tenth of it to fine-tune."""
    low = student.architecture.startswith(("cifar_mobilenet", "cifar_shufflenet"))
    return (0.01 if low else 0.05) * (0.1 if job.init else 1.0)
