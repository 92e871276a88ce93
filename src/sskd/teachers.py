"""Networks that are brought along: loaded, checked against the data, measured."""

from dataclasses import dataclass
from pathlib import Path

import torch

from sskd.data.batches import Resident, in_order
from sskd.data.source import Source, info
from sskd.errors import UserError
from sskd.models.checkpoints import load_network
from sskd.models.network import Network, Normalisation
from sskd.train.meters import Meter
from sskd.train.protocols import Record
from sskd.train.step import accuracy


@dataclass(frozen=True)
class Teacher:
    """Where the teacher comes from, and what a bare weights file cannot say about it."""

    path: str
    architecture: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def pick_device(name: str) -> str:
    """The device that `name` means here.

    Raises:
        UserError: it cannot be used.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"The device {name!r} is not one that training runs on: auto, cpu, cuda or cuda:N.")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"The device {name!r} cannot be used: {str(error).splitlines()[0]}. Try --device auto."
        ) from error
    return name


def load_teacher(teacher: Teacher, source: Source, channels: int) -> Network:
    """The teacher, checked against the data's classes.

    Raises:
        UserError: it cannot be loaded, or was trained on other classes.
    """
    if (teacher.mean is None) != (teacher.std is None):
        raise UserError("A normalisation needs both a mean and a std for each channel; only one of them was given.")
    mean, std = teacher.mean or source.mean, teacher.std or source.std
    origin = "the arguments" if teacher.mean else f"the data set {source.name}"
    network = load_network(
        Path(teacher.path),
        teacher.architecture,
        source.class_names,
        channels,
        Normalisation(mean, std, origin),
    )
    if teacher.mean and teacher.std and network.normalisation.origin != origin:
        stated = Normalisation(mean, std, origin)
        network = Network(network.architecture, network.backbone, stated, network.class_names)
    ours, theirs = set(source.class_names), set(network.class_names)
    if network.class_names == source.class_names:
        return network
    if ours == theirs:
        raise UserError(
            f"The teacher {teacher.path} and the data {source.name} have the same classes in another order "
            f"({_few(network.class_names)} and {_few(source.class_names)}). Number the classes alike."
        )
    raise UserError(
        f"The teacher {teacher.path} knows {len(theirs)} classes ({_few(network.class_names)}), the data {source.name} "
        f"has {len(ours)} ({_few(source.class_names)}). Only the teacher has: {_few(sorted(theirs - ours)) or 'none'}; "
        f"only the data has: {_few(sorted(ours - theirs)) or 'none'}. Train a teacher on this data with sskd teacher."
    )


def measure(network: Teacher, source: Source, device: str) -> Record:
    """Top-1 and top-5 accuracy of a network on the test images of `source`.

    Raises:
        UserError: it cannot be loaded, was trained on other classes, or cannot take the images.
    """
    where = pick_device(device)
    shape = info(source, source.test).image_shape
    model = load_teacher(network, source, shape[0])
    model.shapes(shape)
    model.to(where).eval()
    data, meter = Resident.on(source.test, torch.device(where)), Meter()
    with torch.no_grad():
        for index in in_order(len(data), 512):
            pixels, labels = data.take(index.to(where))
            meter.update(accuracy(model(pixels.float() / 255), labels), 0, len(index))
    return {
        "network": model.architecture,
        "data": source.name,
        "images": len(data),
        **meter.read(),
        "normalisation_from": model.normalisation.origin,
    }


def _few(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
