"""The package's functions. The command line calls the same ones, with the same names and defaults."""

from pathlib import Path
from typing import Any, Literal

from sskd.data import load_source
from sskd.jobs import Job, execute
from sskd.progress import Display
from sskd.settings import Training
from sskd.teachers import Teacher, measure
from sskd.train.protocols import Record


def train_teacher(model: str, data: str, out: str | None = None, **training: Any) -> Record:
    """Train a network on labels alone, as a teacher or as a baseline.

    Args:
        model: a network of the zoo or of timm (see `sskd list models`).
        data: a data set: digits, a folder of Hugging Face-style parquet, or FAMILY:PATH.
        out: the run directory; runs/DATA-MODEL-ce-seedN where it is not given.
        training: see `sskd.settings.Training`.

    Returns:
        What result.json holds: the records of the last and of the best epoch, parameters, seconds.

    Raises:
        UserError: anything that the caller can put right.
    """
    settings = Training(**training)
    job = Job(_folder(out, data, model, "ce", settings), model, data, "ce", settings)
    with Display() as display:
        return execute(job, display)


def distill(
    student: str,
    data: str,
    teacher: str | None = None,
    method: str = "sskd",
    options: dict[str, Any] | None = None,
    fraction: float = 1.0,
    teacher_data: Literal["full", "subset"] = "full",
    teacher_architecture: str | None = None,
    teacher_mean: tuple[float, ...] | None = None,
    teacher_std: tuple[float, ...] | None = None,
    out: str | None = None,
    cache: str | None = None,
    **training: Any,
) -> Record:
    """Train a student, from a teacher and labels.

    Args:
        student: a network of the zoo or of timm (see `sskd list models`).
        data: a data set: digits, a folder of Hugging Face-style parquet, or FAMILY:PATH.
        teacher: a run directory, a folder as timm writes it, or a weights file (with teacher_architecture).
        method: how to distil (see `sskd list methods`).
        options: the method's own options, as options.NAME=VALUE.
        fraction: share of the training images that the student sees, stratified by class.
        teacher_data: what stages that train a part of the teacher (SSKD's head) see: all training images, or the
            student's share.
        teacher_architecture: the network of a bare weights file.
        teacher_mean: the teacher's normalisation, per channel for pixels in [0, 1], for a bare weights file; the data
            set's where it is not given.
        teacher_std: see teacher_mean.
        out: the run directory; runs/DATA-STUDENT-METHOD-seedN where it is not given.
        cache: where results that students share are kept; cache/ beside the run where it is not given.
        training: see `sskd.settings.Training`.

    Returns:
        What result.json holds: the records of the last and of the best epoch, parameters, seconds.

    Raises:
        UserError: anything that the caller can put right.
    """
    settings = Training(**training)
    source = Teacher(teacher, teacher_architecture, teacher_mean, teacher_std) if teacher else None
    job = Job(
        _folder(out, data, student, method, settings),
        student,
        data,
        method,
        settings,
        source,
        options or {},
        fraction,
        teacher_data,
        Path(cache) if cache else None,
    )
    with Display() as display:
        return execute(job, display)


def _folder(out: str | None, data: str, network: str, method: str, training: Training) -> Path:
    name = Path(data.rpartition(":")[2]).name
    return Path(out or f"runs/{name}-{network}-{method}-seed{training.seed}")


def evaluate(
    network: str,
    data: str,
    architecture: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    square: Literal["refuse", "crop"] = "refuse",
    device: str = "auto",
) -> Record:
    """Measure a network's accuracy on a data set's test split.

    Args:
        network: a run directory, a folder as timm writes it, or a weights file (with architecture).
        data: a data set: digits, a folder of Hugging Face-style parquet, or FAMILY:PATH.
        architecture: the network of a bare weights file.
        mean: the network's normalisation, per channel for pixels in [0, 1], for a bare weights file; the data set's
            where it is not given.
        std: see mean.
        square: images that are not square are refused, or cropped to their centre.
        device: auto, cpu, cuda or cuda:N.

    Returns:
        Top-1 and top-5 accuracy as shares, the number of images, and where the normalisation came from.

    Raises:
        UserError: anything that the caller can put right.
    """
    return measure(Teacher(network, architecture, mean, std), load_source(data, square), device)
