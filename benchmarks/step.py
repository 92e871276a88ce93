"""How long one SSKD training step takes: the released code's way of doing it against ours, in one run.

`python -m benchmarks.step --help`. The variants take turns within each round, in an order that is turned round every
time, so that whatever else the machine does meets all of them. Ours always makes its views in the step; the released
way is measured without its input pipeline, which favours it, and with it.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from benchmarks.as_published import FourRotations, PublishedStep, WithHead, loader
from benchmarks.ours import NORMALISATION, Ours, normalised, random_data
from sskd.environment import environment
from sskd.train.choose import title
from sskd.train.step import Execution

ALONE, WITH_INPUT = "as published, without input", "as published, with input"
FROZEN_RATE = 0.0  # weights, and with them the work of selective transfer, stay the same in every round


@dataclass
class Variant:
    """One way to train a step, and how long it took: seconds per step, one number a round."""

    name: str
    step: Callable[[], object]
    prepare: Callable[[], object] = lambda: None  # before each round, not timed
    first: float = 0.0  # seconds of the very first step, which compiles where something is compiled
    rounds: list[float] = field(default_factory=list)


class Fed:
    """The published step behind its own input pipeline."""

    def __init__(self, step: PublishedStep, dataset: FourRotations, batch_size: int, workers: int) -> None:
        self.step = step
        self.batches = loader(dataset, batch_size, workers, step.device)
        self.iterator: Iterator[Any] = iter(())

    def prepare(self) -> None:
        """Start afresh. Workers end with the round that they worked for, so that they disturb nobody else's."""
        self.iterator = iter(self.batches)

    def __call__(self) -> None:
        """One whole step."""
        batch = next(self.iterator, None)
        if batch is None:  # the data is at its end
            self.prepare()
            batch = next(self.iterator)
        self.step(*batch)

    def stop(self) -> None:
        """End the workers."""
        self.iterator = iter(())


def has_bf16(device: str) -> bool:
    """Whether the machine computes in bfloat16; without the instructions it would only emulate it."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})  # the last is ARM's


def executions(device: str, threads: int, compiled: bool) -> list[Execution]:
    """Ours: both memory formats, bf16 where there is such a thing, the teacher folded, compiled if asked for."""
    plain = Execution(device, threads=threads)
    last = replace(plain, channels_last=True)
    found = [plain, last, replace(last, folded=True)]
    if has_bf16(device):
        found += [replace(last, precision="bf16"), replace(last, precision="bf16", folded=True)]
    if not compiled:
        return found
    built = [replace(one, compiled=True) for one in found if one.folded]
    return found + built + ([replace(one, graphs=True) for one in built] if device.startswith("cuda") else [])


def variants(
    teacher: str,
    student: str,
    batch_size: int,
    images: int,
    classes: int,
    workers: int,
    options: list[Execution],
) -> list[Variant]:
    """Everything that is compared, each with networks of its own, all from one seed."""
    data, info = random_data(images, classes)
    ours = {
        f"ours, {title(option)}": Ours(teacher, student, data, info, batch_size, option, FROZEN_RATE)
        for option in options
    }
    device = options[0].device
    # The same networks and heads once more, and a batch as the pipeline would deliver it.
    model = Ours(teacher, student, data, info, batch_size, Execution(device), FROZEN_RATE)
    model.step.close()
    student_head, teacher_head = model.heads()
    published = PublishedStep(
        WithHead(model.student.backbone, student_head),
        WithHead(model.teacher.backbone, teacher_head),
        device,
        FROZEN_RATE,
    )
    batch = model.batch()
    views, labels = normalised(model.student, batch.images).cpu(), batch.labels.cpu()
    dataset = FourRotations(data.pixels, data.labels, NORMALISATION.mean, NORMALISATION.std)
    fed = Fed(published, dataset, batch_size, workers)

    return [
        Variant(ALONE, lambda: published(views, labels), fed.stop),
        Variant(WITH_INPUT, fed, fed.prepare),
        *(Variant(name, step, fed.stop) for name, step in ours.items()),
    ]


def measure(compared: list[Variant], rounds: int, steps: int, device: str, console: Console) -> None:
    """Fill in the variants' times. Each round of a variant begins with a step that is not timed."""

    def seconds(step: Callable[[], object], times: int) -> float:
        _wait(device)
        began = time.perf_counter()
        for _ in range(times):
            step()
        _wait(device)
        return (time.perf_counter() - began) / times

    for variant in compared:
        variant.prepare()
        variant.first = seconds(variant.step, 1)
    for done in range(rounds):
        for variant in compared if done % 2 == 0 else reversed(compared):
            variant.prepare()
            variant.step()
            variant.rounds.append(seconds(variant.step, steps))
        console.print(f"round {done + 1} of {rounds}", style="dim")


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def quartiles(values: list[float]) -> list[float]:
    """First quartile, median, third quartile."""
    return [float(value) for value in np.percentile(values, (25, 50, 75))]


def summary(compared: list[Variant], batch_size: int) -> dict[str, dict[str, Any]]:
    """Per variant its times, and how many times as fast as each reference it is, compared within each round."""
    by_name = {variant.name: variant for variant in compared}
    found: dict[str, dict[str, Any]] = {}
    for variant in compared:
        times = quartiles(variant.rounds)
        found[variant.name] = {
            "ms_per_step": [1000 * value for value in times],
            "ms_per_step_min": 1000 * min(variant.rounds),
            "images_per_s": batch_size / times[1],
            "first_step_s": variant.first,
            "rounds_s": variant.rounds,
        }
        for key, reference in (("times_alone", ALONE), ("times_with_input", WITH_INPUT)):
            pairs = zip(by_name[reference].rounds, variant.rounds, strict=True)
            found[variant.name][key] = quartiles([theirs / ours for theirs, ours in pairs])
            # On a shared machine a neighbour can spoil most rounds of one variant; the best ones stay comparable.
            found[variant.name][f"best_{key}"] = min(by_name[reference].rounds) / min(variant.rounds)
    return found


def table(found: dict[str, dict[str, Any]], caption: str) -> Table:
    """The summary for people."""
    shown = Table(title="One SSKD training step", caption=caption, caption_justify="left")
    shown.add_column("")
    for column in (
        "ms per step\nmedian \\[quartiles]",
        "best",
        "images/s",
        "x published without input\nmedian \\[quartiles], of bests",
        "x published with input\nmedian \\[quartiles], of bests",
    ):
        shown.add_column(column, justify="right")
    for name, row in found.items():
        low, middle, high = row["ms_per_step"]
        ratios = [
            f"{row[key][1]:.2f} [{row[key][0]:.2f}, {row[key][2]:.2f}], {row[f'best_{key}']:.2f}"
            for key in ("times_alone", "times_with_input")
        ]
        best, rate = f"{row['ms_per_step_min']:.1f}", f"{row['images_per_s']:.1f}"
        shown.add_row(name, f"{middle:.1f} [{low:.1f}, {high:.1f}]", best, rate, *ratios)
    return shown


def main(
    teacher: str = "cifar_wrn_40_2",
    student: str = "cifar_wrn_16_2",
    batch_size: int = 64,
    rounds: int = 7,
    steps: int = 3,
    device: str = "cpu",
    threads: int | None = None,
    workers: int = 0,
    compiled: bool = False,
    images: int = 50_000,
    classes: int = 100,
    out: Path | None = None,
) -> dict[str, Any]:
    """Time the SSKD training step, as published and ours, and write the result as JSON.

    Args:
        teacher: a network of the zoo or of timm.
        student: a network of the zoo or of timm.
        batch_size: images per step; each becomes four views.
        rounds: how often every variant has its turn; medians and quartiles are over these.
        steps: timed steps per turn, after one that is not timed.
        device: cpu, cuda, cuda:1...
        threads: of torch; what torch chooses where it is not given.
        workers: processes of the published input pipeline; 0 makes the views in the training process. Workers run
            ahead of the clock by two batches each, so give `steps` well above that.
        compiled: measure ours compiled as well.
        images: size of the data set of random 3x32x32 images.
        classes: number of classes.
        out: the JSON file; results/step-DEVICE.json of this repository where it is not given.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    options = executions(device, torch.get_num_threads(), compiled)
    settings = {
        "teacher": teacher,
        "student": student,
        "batch_size": batch_size,
        "rounds": rounds,
        "steps": steps,
        "device": device,
        "threads": torch.get_num_threads(),
        "workers": workers,
        "compiled": compiled,
        "images": images,
        "classes": classes,
    }
    console = Console()
    compared = variants(teacher, student, batch_size, images, classes, workers, options)
    measure(compared, rounds, steps, device, console)
    found, machine = summary(compared, batch_size), environment()
    arguments = itertools.chain.from_iterable(
        (f"--{key}", str(value).lower() if isinstance(value, bool) else str(value)) for key, value in settings.items()
    )
    report = {
        **machine,
        "command": " ".join(["python -m benchmarks.step", *arguments]),
        "bf16_instructions": has_bf16(device),
        "settings": settings,
        "variants": found,
    }
    caption = (
        f"{teacher} -> {student}, {batch_size} images x 4 views, 3x32x32; {rounds} rounds of {steps} steps\n"
        f"{machine['accelerator'] if device.startswith('cuda') else machine['processor']}, "
        f"{settings['threads']} threads, torch {machine['torch']}; {workers} workers for the published input"
    )
    console.print(table(found, caption))
    if not has_bf16(device):
        console.print(f"No bf16 variant: {device} here has no bfloat16 instructions.")
    path = out or Path(__file__).parents[1] / "results" / f"step-{device.partition(':')[0]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    return report


def spelled(words: list[str]) -> list[str]:
    """`--batch-size` as well as `--batch_size`, and `--compiled` alone for `--compiled true`."""
    found = []
    for word, following in itertools.pairwise([*words, "--"]):
        name, equals, value = word.partition("=")
        alone = word == "--compiled" and following.startswith("--")
        option = f"--{name[2:].replace('-', '_')}{equals}{value}" if word.startswith("--") else word
        found.append(f"{word}=true" if alone else option)
    return found


if __name__ == "__main__":
    auto_cli(main, args=spelled(sys.argv[1:]), as_positional=False)
