"""The package's functions. The command line calls the same ones, with the same names and defaults."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec

from sskd.arguments import (
    Data,
    Named,
    data_argument,
    network_argument,
    refuse_weights_alone,
    run_folder,
    training_arguments,
)
from sskd.data import checked, load_source
from sskd.errors import UserError
from sskd.jobs.adopt import adopt, evaluated
from sskd.jobs.execute import execute
from sskd.jobs.job import Job
from sskd.models.folders import is_factory
from sskd.models.load import Brought
from sskd.progress import Display
from sskd.ranges import LARGEST_SIDE, need_between, need_bool, refuse_empty
from sskd.reading import Reading
from sskd.settings import Training
from sskd.train.protocols import Record
from sskd.validation import convert

P = ParamSpec("P")


def carry_out(job: Job) -> Record:
    """Train, or continue, what a job describes; without epochs, check and keep the network that it brings.

    Raises:
        UserError: anything that the caller can put right.
    """
    with Display(title=job.out.absolute().name) as display:
        return execute(job, display) if job.training.epochs else adopt(job, job.load_source(), display)


def _carried_out(describe: Callable[P, Job], name: str) -> Callable[P, Record]:
    """The function of this name, which runs the job that `describe` makes of the same arguments."""

    @wraps(describe)
    def run(*arguments: P.args, **named: P.kwargs) -> Record:
        return carry_out(describe(*arguments, **named))

    run.__name__ = run.__qualname__ = name
    vars(run)["__signature__"] = inspect.signature(describe).replace(return_annotation=Record)
    return run


def teaching(
    data: Data,
    model: Named | None = None,
    init: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    init_weights: str | None = None,
    fraction: float = 1.0,
    out: str | None = None,
    trust_code: bool = False,
    reading: Reading = Reading(),  # noqa: B008  # frozen
    **training: Any,
) -> Job:
    """Train a network on labels alone, fine-tune one, or (--epochs 0) only check one and keep it as a teacher.

    Args:
        data: a data set (see `sskd list data`): digits, FAMILY:PATH, or a folder. In Python also images: a
            torch.utils.data.Dataset of (image, label), a datasets.Dataset, a pair (images, labels), or a mapping of
            "train" and "test" to these; images are PIL images, uint8, or floats from 0 to 1, without normalisation.
        model: a network of the zoo or of timm (see `sskd list models`), torchvision:NAME, or package.module:factory;
            not needed where `init` says what it is. With --epochs 0, a function's network is kept with its weights.
        init: weights to begin with: a run directory, a folder as timm writes it, a weights file (of `model`),
            hf-hub:OWNER/NAME, or weights that timm or torchvision has. Other classes get a new classifier.
        mean: the normalisation of `init`, per channel for pixels in [0, 1], where the weights do not state it.
        std: see mean.
        init_weights: of a weights file that holds several: ema, plain, or their prefix in the file.
        fraction: share of the training images that it sees, stratified by class.
        out: the run directory; runs/DATA-MODEL-ce-seedN where it is not given.
        trust_code: run the function that a folder names as its architecture (package.module:function), or code that a
            run's config names. Such a folder is refused otherwise, unless the command names the same function.
        reading: how the data set is read.
        training: see `sskd.settings.Training`.

    Returns:
        What result.json holds: the records of the last and of the best epoch, parameters, seconds.

    Raises:
        UserError: anything that the caller can put right.
    """
    training = training_arguments(training, teaching)
    settings = Training(**training)
    refuse_empty(model=model, init=init, out=out)
    refuse_weights_alone("init", init_weights, init)
    need_bool("trust_code", trust_code)
    reading = convert(reading, Reading, "reading")
    name, modules = network_argument(model, "student")
    if name is None and init is None:
        raise UserError("Say which network: --model NAME, or --init WEIGHTS.")
    brought = Brought(init, name, mean, std, weights=init_weights) if init else None
    if not init and not settings.epochs and name is not None and is_factory(name):
        brought = Brought(name, None, mean, std)  # it comes with its weights
    network = name or str(init)
    data_name, source = data_argument(data, reading)
    return Job(
        run_folder(out, data_name, network, "ce" if settings.epochs else "checked", settings),
        network,
        data_name,
        "ce",
        settings,
        init=brought,
        fraction=fraction,
        reading=reading,
        modules=modules,
        trust_code=trust_code,
        source=source,
    )


train_teacher = _carried_out(teaching, "train_teacher")


def distillation(
    student: Named,
    data: Data,
    teacher: Named | None = None,
    method: str = "sskd",
    options: dict[str, Any] | None = None,
    fraction: float = 1.0,
    teacher_data: Literal["full", "subset"] = "full",
    teacher_labels: Literal["clean", "noisy"] = "clean",
    student_init: str | None = None,
    student_init_weights: str | None = None,
    student_taps: dict[str, str] | None = None,
    teacher_architecture: str | None = None,
    teacher_mean: tuple[float, ...] | None = None,
    teacher_std: tuple[float, ...] | None = None,
    teacher_size: int | None = None,
    teacher_weights: str | None = None,
    teacher_taps: dict[str, str] | None = None,
    out: str | None = None,
    cache: str | None = None,
    trust_code: bool = False,
    reading: Reading = Reading(),  # noqa: B008  # frozen
    **training: Any,
) -> Job:
    """Train a student, from a teacher and labels.

    Args:
        student: a network of the zoo or of timm (see `sskd list models`), torchvision:NAME, or package.module:factory.
        data: a data set (see `sskd list data`): digits, FAMILY:PATH, or a folder. In Python also images: a
            torch.utils.data.Dataset of (image, label), a datasets.Dataset, a pair (images, labels), or a mapping of
            "train" and "test" to these; images are PIL images, uint8, or floats from 0 to 1, without normalisation.
        teacher: a run directory, a folder as timm writes it, a weights file (with teacher_architecture),
            hf-hub:OWNER/NAME, weights that timm or torchvision has, or package.module:factory that returns a network
            with its weights.
        method: how to distil (see `sskd list methods`).
        options: the method's own options, as options.NAME=VALUE.
        fraction: share of the training images that the student sees, stratified by class.
        teacher_data: what stages that train a part of the teacher (SSKD's head) see: all training images, or the
            student's share.
        teacher_labels: with noise, the labels that those stages see where they read any: from before it, or after.
        student_init: weights that the student begins with, named like a teacher.
        student_init_weights: see teacher_weights.
        student_taps: modules at which methods read the student, NAME: MODULE or NAME: MODULE:in, beside those found;
            after that :channels_last, :channels_first or :again where it is needed.
        teacher_architecture: the network of a bare weights file; the function of a folder that names one.
        teacher_mean: the teacher's normalisation, per channel for pixels in [0, 1], where its weights do not state it
            or state a wrong one.
        teacher_std: see teacher_mean.
        teacher_size: pixels, the side to which the teacher's images are resized; what its weights state where it is
            not given.
        teacher_weights: of a weights file that holds several: ema, plain, or their prefix in the file.
        teacher_taps: see student_taps.
        out: the run directory; runs/DATA-STUDENT-METHOD-seedN where it is not given.
        cache: where results that students share are kept; cache/ beside the run where it is not given.
        trust_code: run the function that a folder names as its architecture (package.module:function), or code that a
            run's config names. Such a folder is refused otherwise, unless the command names the same function.
        reading: how the data set is read.
        training: see `sskd.settings.Training`.

    Returns:
        What result.json holds: the records of the last and of the best epoch, parameters, seconds.

    Raises:
        UserError: anything that the caller can put right.

    Example:
        >>> import tempfile, torch, sskd
        >>> images, labels = torch.rand(40, 3, 8, 8), torch.arange(40) % 2
        >>> out, quick = tempfile.mkdtemp() + "/run", {"epochs": 1, "batch_size": 8, "device": "cpu", "threads": 1}
        >>> done = sskd.distill("cifar_resnet8", (images, labels), method="ce", padding=1, out=out, **quick)
        >>> done["classes"]
        ['0', '1']
    """
    training = training_arguments(training, distillation)
    settings = Training(**training)
    refuse_empty(student=student, teacher=teacher, student_init=student_init, out=out, cache=cache)
    need_bool("trust_code", trust_code)
    reading = convert(reading, Reading, "reading")
    need_between("teacher_size", teacher_size, 1, LARGEST_SIDE)
    if settings.epochs < 1:
        raise UserError(f"epochs must be at least 1; got {settings.epochs}.")
    name, student_modules = network_argument(student, "student")
    place, teacher_modules = network_argument(teacher, "teacher")
    refuse_weights_alone("teacher", teacher_weights, place)
    refuse_weights_alone("student_init", student_init_weights, student_init)
    stated = teacher_architecture, teacher_mean, teacher_std, teacher_size, teacher_weights
    brought = Brought(place, *stated) if place else None
    data_name, source = data_argument(data, reading)
    return Job(
        run_folder(out, data_name, str(name), method, settings),
        str(name),
        data_name,
        method,
        settings,
        brought,
        Brought(student_init, str(name), weights=student_init_weights) if student_init else None,
        options or {},
        fraction,
        teacher_data,
        teacher_labels,
        Path(cache) if cache else None,
        reading,
        student_taps or {},
        teacher_taps or {},
        {**student_modules, **teacher_modules},
        trust_code,
        source,
    )


distill = _carried_out(distillation, "distill")


def evaluate(
    network: str,
    data: Data,
    architecture: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    size: int | None = None,
    weights: str | None = None,
    trust_code: bool = False,
    reading: Reading = Reading(),  # noqa: B008  # frozen
    device: str = "auto",
) -> Record:
    """Measure a network's accuracy on a data set's test split; a run's in the precision that the run measured it in.

    Args:
        network: a run directory, a folder as timm writes it, a weights file (with architecture), hf-hub:OWNER/NAME,
            weights that timm or torchvision has, or package.module:factory that returns a network with its weights.
        data: a data set (see `sskd list data`): digits, FAMILY:PATH, or a folder. In Python also images: a
            torch.utils.data.Dataset of (image, label), a datasets.Dataset, a pair (images, labels), or a mapping of
            "train" and "test" to these; images are PIL images, uint8, or floats from 0 to 1, without normalisation.
        architecture: the network of a bare weights file; the function of a folder that names one.
        mean: the network's normalisation, per channel for pixels in [0, 1], where its weights do not state it.
        std: see mean.
        size: pixels, the side of the images that the network is given; the images' own where it is not given, and for
            photographs what its weights state.
        weights: of a weights file that holds several: ema, plain, or their prefix in the file.
        trust_code: run the function that a folder names as its architecture (package.module:function), or code that a
            run's config names. Such a folder is refused otherwise, unless the command names the same function.
        reading: how the data set is read.
        device: auto, cpu, cuda or cuda:N.

    Returns:
        Top-1 and top-5 accuracy as shares, the number of images, the classes, where the normalisation came from.

    Raises:
        UserError: anything that the caller can put right.
    """
    refuse_empty(network=network, architecture=architecture)
    need_bool("trust_code", trust_code)
    reading = convert(reading, Reading, "reading")
    need_between("size", size, 1, LARGEST_SIDE)
    name, handed_over = data_argument(data, reading)
    source = load_source(name, reading) if handed_over is None else checked(handed_over, reading)
    brought = Brought(network, architecture, mean, std, weights=weights)
    return evaluated(brought, source, size, device, trust_code)
