"""Memory and time of one SSKD step with and without micro-batches and recomputed blocks.

`python -m benchmarks.memory --help`. Each variant is a process of its own, eager; on a GPU also the step as one CUDA
graph. The memory of the step is the most that was held after the first step, less what was held before it: by the
process, or by torch's allocator on a GPU, for which it is also told how much of that tensors took.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks.lines import markdown
from benchmarks.results import RESULTS, Results
from benchmarks.step import measure
from benchmarks.tables import memory_table
from benchmarks.variants import Setting, Variant, usual


def compared(device: str, threads: int, micro_batch: int) -> list[Variant]:
    """All variants, in bf16 where there is such a thing."""
    captured = usual(device, threads)
    plain = captured.eager
    found = {
        "as it is": plain,
        "recompute": replace(plain, recompute=True),
        f"micro_batch {micro_batch}": replace(plain, micro_batch=micro_batch),
        f"micro_batch {micro_batch}, recompute": replace(plain, micro_batch=micro_batch, recompute=True),
    }
    found |= {"one CUDA graph": captured} if captured.captured else {}
    return [Variant(name, "ours", execution) for name, execution in found.items()]


def main(
    pairs: tuple[str, ...] = ("resnet34:resnet50:224",),
    batch_size: int = 4,
    micro_batch: int = 1,
    rounds: int = 1,
    untimed: int = 0,
    steps: int = 1,
    classes: int = 100,
    device: str = "cpu",
    threads: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure what a step takes and write the result as JSON.

    Args:
        pairs: TEACHER:STUDENT:SIDE, networks of the zoo or of timm and the side of their images in pixels.
        batch_size: images per step; each becomes four views.
        micro_batch: images that are run at a time.
        rounds: how often every variant has its turn.
        untimed: steps of each turn before the clock starts.
        steps: timed steps per turn.
        classes: number of classes.
        device: cpu, cuda, cuda:1...
        threads: of torch; what torch chooses where it is not given.
        out: the JSON file; results/memory-DEVICE.json of this repository where it is not given.

    Raises:
        RuntimeError: no variant of a pair could be run.
    """
    threads = threads or torch.get_num_threads()
    settings = {"pairs": list(pairs), "batch_size": batch_size, "micro_batch": micro_batch, "rounds": rounds}
    settings |= {"untimed": untimed, "steps": steps, "classes": classes, "device": device, "threads": threads}
    results = Results(out or RESULTS / f"memory-{device.partition(':')[0]}.json", "memory", settings)
    for pair in pairs:
        if pair not in results:
            teacher, student, side = pair.split(":")
            given = Setting(teacher, student, batch_size, 2 * batch_size, classes, device, threads, side=int(side))
            found = measure(compared(device, threads, micro_batch), given, rounds, untimed, steps)
            if all("failed" in row for row in found.values()):  # not kept: it is tried again by the next call
                raise RuntimeError(f"{pair}: {next(iter(found.values()))['failed']}")
            results.keep(pair, found)
    print("\n\n".join(markdown(table) for table in memory_table(results.values)))
    return results.values


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
