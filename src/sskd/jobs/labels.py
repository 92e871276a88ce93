"""What a run keeps and says of the labels that it was trained on: few, wrong, and what its teacher saw."""

import hashlib
from pathlib import Path
from typing import Any

from safetensors.torch import save

from sskd.data.splits import Splits
from sskd.errors import UserError
from sskd.files import write_atomic
from sskd.jobs.job import Job
from sskd.models.load import Brought
from sskd.run_files import read_config

FILE = "labels.safetensors"


def stated_labels(job: Job, splits: Splits) -> dict[str, Any]:
    """For the config: which images and labels the student, the shared stages and the teacher saw.

    `file` holds the positions of the student's images and the labels that were changed (see `Splits.record`), `sha256`
    is the hash of what it holds; both None where the student sees all images as they are.
    """
    record, training = splits.record, job.training
    shared = len(splits.full if job.teacher_data == "full" else splits.train)
    return {
        "file": FILE if record else None,
        "sha256": hashlib.sha256(save(record)).hexdigest() if record else None,
        "student": {"images": len(splits.train), "wrong_labels": splits.wrong},
        "shared_stages": {"images": shared, "labels": job.teacher_labels if splits.clean is not None else "clean"},
        "teacher": _teacher_saw(job.teacher),
        "evaluation": "clean",
        **({"noise": training.noise, "noise_kind": training.noise_kind} if splits.clean is not None else {}),
    }


def keep_labels(folder: Path, splits: Splits) -> None:
    """Write the lists into a run's folder; nothing where the student sees all images as they are.

    Raises:
        UserError: they cannot be written.
    """
    if record := splits.record:
        write_atomic(folder / FILE, save(record))


def _teacher_saw(teacher: Brought | None) -> dict[str, Any] | None:
    """What the teacher's own run says that it was trained on; None where it says nothing."""
    if teacher is None or not (place := Path(teacher.place) / "config.json").is_file():
        return None
    try:
        config = read_config(place)
    except UserError:
        return None
    arguments = config.get("arguments", {})
    training = arguments.get("training", {})
    if "train_images" not in config.get("data", {}):
        return None  # it was brought along, not trained
    noise = training.get("noise", 0.0)
    return {
        "data": config["data"].get("name"),
        "images": config["data"]["train_images"],
        "fraction": arguments.get("fraction", 1.0),
        "per_class": training.get("per_class"),
        "noise": noise,
        "noise_kind": training.get("noise_kind") if noise else None,
    }
