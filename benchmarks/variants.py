"""The ways to train a step that are compared. Each is run in a process of its own, so that its memory can be told."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from benchmarks.as_published import FourRotations, PublishedStep, WithHead, loader
from benchmarks.ours import NORMALISATION, Ours, normalised, random_data
from sskd.train.choose import title
from sskd.train.step import Execution, Precision

ALONE, WITH_INPUT, PEER = "as published, without input", "as published, with its input", "torchdistill, its loop"
FROZEN_RATE = 0.0  # weights, and with them the work of selective transfer, stay the same in every round

Kind = Literal["alone", "fed", "peer", "ours"]


@dataclass(frozen=True)
class Setting:
    """What is compared on: networks, batch, data."""

    teacher: str
    student: str
    batch_size: int = 64
    images: int = 50_000
    classes: int = 100
    device: str = "cpu"
    threads: int = 1
    views: int = 4
    side: int = 32  # of an image, in pixels
    workers: int = 0  # of the published input pipeline and torchdistill's


@dataclass(frozen=True)
class Variant:
    """One way to train a step."""

    name: str
    kind: Kind
    execution: Execution | None = None  # of ours


@dataclass
class Running:
    """A variant, built: `prepare` comes before each turn and is not timed, `stop` after it."""

    step: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    stop: Callable[[], object] = lambda: None


class Fed:
    """The published step behind its own input pipeline."""

    def __init__(self, step: PublishedStep, dataset: FourRotations, batch_size: int, workers: int) -> None:
        self.step = step
        self.batches = loader(dataset, batch_size, workers, step.device)
        self.iterator: Iterator[Any] = iter(())

    def prepare(self) -> None:
        """Start afresh."""
        self.iterator = iter(self.batches)

    def __call__(self) -> None:
        """One whole step."""
        batch = next(self.iterator, None)
        if batch is None:  # the data is at its end
            self.prepare()
            batch = next(self.iterator)
        self.step(*batch)

    def stop(self) -> None:
        """End the workers, so that they disturb nobody else's turn."""
        self.iterator = iter(())


def build(variant: Variant, setting: Setting) -> Running:
    """A variant's networks, data and step; from one seed, so that all variants train the same."""
    data, info = random_data(setting.images, setting.classes, setting.side)
    given = (setting.teacher, setting.student, data, info, setting.batch_size)
    if variant.execution is not None:
        return Running(Ours(*given, variant.execution, FROZEN_RATE, setting.views))
    model = Ours(*given, Execution(setting.device), FROZEN_RATE)
    model.step.close()
    batch = model.batch()
    views, labels = normalised(model.student, batch.images).cpu(), batch.labels.cpu()
    dataset = FourRotations(data.pixels, data.labels, NORMALISATION.mean, NORMALISATION.std)
    (student_head, teacher_head), device = model.heads(), setting.device
    if variant.kind == "peer":
        from benchmarks.peer import PeerStep, box

        networks = (model.student, model.teacher)
        names = [network.taps["pooled"].module.removeprefix("backbone.") for network in networks]
        layers = [network.backbone.get_submodule(n) for network, n in zip(networks, names, strict=True)]
        widths = [cast(nn.Linear, layer).in_features for layer in layers]
        made = box(
            model.student.backbone,
            model.teacher.backbone,
            (names[0], names[1]),
            (widths[0], widths[1]),
            dataset,
            setting.batch_size,
            setting.workers,
            device,
            FROZEN_RATE,
        )
        peer = PeerStep(made)
        return Running(peer, peer.prepare, peer.stop)
    student = WithHead(model.student.backbone, student_head)
    published = PublishedStep(student, WithHead(model.teacher.backbone, teacher_head), device, FROZEN_RATE)
    if variant.kind == "alone":
        return Running(lambda: published(views, labels))
    fed = Fed(published, dataset, setting.batch_size, setting.workers)
    return Running(fed, fed.prepare, fed.stop)


def has_bf16(device: str) -> bool:
    """Whether the machine computes in bfloat16; without the instructions it would only emulate it."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})  # the last is ARM's


def usual(device: str, threads: int, compiled: bool = False) -> Execution:
    """As a run takes its step, as far as that is known without trying: on a GPU as one CUDA graph."""
    precision: Precision = "bf16" if has_bf16(device) else "fp32"
    plain = Execution(device, precision, channels_last=True, folded=True, threads=threads)
    return replace(plain, compiled=compiled, captured=device.startswith("cuda"))


def executions(device: str, threads: int, compiled: bool) -> list[Execution]:
    """Ours: the memory format, then bf16 where there is such a thing, the teacher folded; on a GPU the best of each
    precision as one CUDA graph; compiled if asked for.
    """
    plain = Execution(device, threads=threads)
    last = replace(plain, channels_last=True)
    found = [plain, last, replace(last, folded=True)]
    if has_bf16(device):
        found += [replace(last, precision="bf16"), replace(last, precision="bf16", folded=True)]
    best, on_gpu = found[-1], device.startswith("cuda")
    if on_gpu:
        found += [replace(one, captured=True) for one in (found[2], best)]
    if compiled:  # the best precision alone: compiling takes minutes
        built = replace(best, compiled=True)
        found += [replace(built, graphs=True), replace(built, captured=True)] if on_gpu else [built]
    return found


def compared(setting: Setting, compiled: bool, peer: bool) -> list[Variant]:
    """All variants."""
    ours = executions(setting.device, setting.threads, compiled)
    theirs = [Variant(ALONE, "alone"), Variant(WITH_INPUT, "fed"), *([Variant(PEER, "peer")] if peer else [])]
    return theirs + [Variant(f"ours, {title(one)}", "ours", one) for one in ours]
