"""How the cost of a training step grows: with batch, views, feature width, classes and the size of the data.

`python -m benchmarks.growth --help`. Two things are measured: whole steps, each size in a process of its own for its
memory; and the losses alone, forward and backward, on outputs that are there already, where the growth that the
networks hide can be seen. To each row belongs the exponent p of the power law size^p that fits best.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn

from benchmarks.lines import markdown
from benchmarks.results import RESULTS, Results, exponent
from benchmarks.tables import growth_table
from benchmarks.variants import Setting, Variant, has_bf16
from benchmarks.worker import Worker, wait
from sskd.methods.parts import CrossEntropy, SoftTargets
from sskd.methods.sskd import Similarity, Transformed
from sskd.methods.sskd_loss import PRESETS
from sskd.train.step import Execution, Precision
from sskd.views.contrastive import Contrastive
from sskd.views.pretext import Batch


def step_costs(setting: Setting, axis: str, sizes: Sequence[int], rounds: int, steps: int) -> dict[str, list[float]]:
    """Of whole steps at each size: milliseconds (the least of the rounds), MiB of the step, MiB held before it."""
    precision: Precision = "bf16" if has_bf16(setting.device) else "fp32"
    execution = Execution(setting.device, precision, channels_last=True, folded=True, threads=setting.threads)
    found: dict[str, list[float]] = {"ms": [], "step_mib": [], "before_mib": []}
    for size in sizes:
        with Worker(Variant("ours", "ours", execution), replace(setting, **cast(Any, {axis: size}))) as worker:
            built = worker.built()
            turns = [worker.turn(0, steps) for _ in range(rounds)]
            before = built["before_mib"]
        found["ms"].append(1000 * min(turn["seconds"] for turn in turns))
        found["step_mib"].append(max(turn["peak_mib"] for turn in turns) - before)
        found["before_mib"].append(before)
    return found


def loss_costs(axis: str, sizes: Sequence[int], rounds: int, device: str) -> dict[str, list[float]]:
    """Milliseconds of SSKD's four terms and their gradients at each size, the least of the rounds."""
    usual, found = {"batch_size": 64, "width": 128, "classes": 100, "views": 4}, []
    for size in sizes:
        batch, width, classes, views = (usual | {axis: size}).values()
        torch.manual_seed(0)
        task = Contrastive()
        heads = [task.head(width, None).to(device) for _ in range(2)]  # type: ignore[arg-type]
        terms: dict[str, nn.Module] = {
            "ce": CrossEntropy(),
            "kd": SoftTargets(4.0),
            "tf": Transformed(4.0, 1.0),
            "ss": Similarity(task, heads[0], heads[1], 0.5, 0.75).to(device),
        }
        student, teacher = (
            {
                "logits": torch.randn(batch, views, classes, device=device),
                "pooled": torch.randn(batch, views, width, device=device),
            }
            for _ in range(2)
        )
        for value in student.values():
            value.requires_grad_()
        labels = torch.randint(classes, (batch,), device=device)
        none = torch.zeros((), device=device)
        given = Batch(none, labels, labels, labels[:, None].expand(-1, views), none, {})
        found.append(1000 * min(_once(terms, student, teacher, given, device) for _ in range(rounds + 1)))
    return {"ms": found}


def _once(
    terms: dict[str, nn.Module], student: dict[str, Tensor], teacher: dict[str, Tensor], batch: Batch, device: str
) -> float:
    wait(device)
    began = time.perf_counter()
    weights = PRESETS["released"]
    losses: list[Tensor] = [weights[name] * term(student, teacher, batch) for name, term in terms.items()]
    torch.autograd.backward(torch.stack(losses).sum())
    wait(device)
    return time.perf_counter() - began


def main(
    teacher: str = "cifar_resnet20",
    student: str = "cifar_resnet8",
    rounds: int = 3,
    steps: int = 2,
    device: str = "cpu",
    threads: int | None = None,
    batches: tuple[int, ...] = (16, 32, 64, 128),
    views: tuple[int, ...] = (2, 4, 8),
    classes: tuple[int, ...] = (10, 100, 1000, 10_000),
    images: tuple[int, ...] = (10_000, 50_000, 250_000),
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024),
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure how cost grows and write the result as JSON.

    Args:
        teacher: a network of the zoo or of timm.
        student: a network of the zoo or of timm.
        rounds: how often each size is measured; the least counts.
        steps: steps of each round.
        device: cpu, cuda, cuda:1...
        threads: of torch; what torch chooses where it is not given.
        batches: images per step; of the losses alone, four times as many too.
        views: of each image.
        classes: numbers of classes.
        images: sizes of the data set.
        widths: of the classifier's input.
        out: the JSON file; results/growth-DEVICE.json of this repository where it is not given.
    """
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    axes = {"batch_size": batches, "views": views, "classes": classes, "images": images}
    settings = {"teacher": teacher, "student": student, "rounds": rounds, "steps": steps, "device": device}
    given = {"batches": batches, "views": views, "classes": classes, "images": images, "widths": widths}
    settings |= {"threads": threads, **{name: list(sizes) for name, sizes in given.items()}}
    results = Results(out or RESULTS / f"growth-{device.partition(':')[0]}.json", "growth", settings)
    setting = Setting(teacher, student, device=device, threads=threads, images=min(images))

    def keep(part: str, sizes: Sequence[int], costs: dict[str, list[float]]) -> None:
        powers = {name: exponent(sizes, values) for name, values in costs.items() if len(sizes) > 1 and min(values) > 0}
        results.keep(part, {"sizes": list(sizes), **costs, "exponents": powers})

    for axis, sizes in axes.items():
        if (part := f"step, {axis}") not in results:
            keep(part, sizes, step_costs(setting, axis, sizes, rounds, steps))
    for axis, sizes in {
        "batch_size": (*batches, *(4 * size for size in batches[-2:])),
        "views": views,
        "width": widths,
        "classes": classes,
    }.items():
        if (part := f"losses, {axis}") not in results:
            keep(part, sizes, loss_costs(axis, sizes, 5 * rounds, device))
    print("\n\n".join(markdown(table) for table in growth_table(results.values)))
    return results.values


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
