"""One of the processes that `benchmarks.many` starts: times a step that all of them take together.

`torchrun ... -m benchmarks.member JSON`, with the fields of `Task`. The first process writes what was measured.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.ours import Ours, random_data, refuse_uncaptured
from benchmarks.results import quartiles
from benchmarks.variants import FROZEN_RATE, usual
from benchmarks.worker import memory, seconds
from sskd.files import write_json
from sskd.train.advance import WARM
from sskd.train.distributed import Relations, join, launched, local_device, parted


@dataclass(frozen=True)
class Task:
    """What is to be timed."""

    teacher: str
    student: str
    batch_size: int  # of each process
    images: int
    classes: int
    side: int
    relations: list[Relations]  # one after the other
    compiled: bool
    rounds: int
    steps: int
    device: str
    threads: int
    out: str


def timed(task: Task) -> None:
    """Take the steps, and let the first process write their milliseconds, by relations."""
    torch.set_num_threads(task.threads)
    device, whole = local_device(task.device), task.batch_size * launched().size
    with parted():
        world, found = join(device, whole, "global", "per_device"), dict[str, Any]()
        data, info = random_data(max(task.images, whole), task.classes, task.side)
        execution = usual(device, task.threads, task.compiled)
        for relations in task.relations:
            ours = replace(world, relations=relations)
            step = Ours(task.teacher, task.student, data, info, whole, execution, FROZEN_RATE, world=ours)
            seconds(step, WARM + 1, device)
            refuse_uncaptured(step)
            memory(device, reset=True)
            times = quartiles([1000 * seconds(step, task.steps, device) for _ in range(task.rounds)])
            row = {"ms_per_step": times, "images_per_s": 1000 * whole / times[1]}
            found[relations] = {**row, "peak_mib": memory(device)["peak_mib"]}
        if world.first:
            write_json(Path(task.out), found)


if __name__ == "__main__":
    timed(Task(**json.loads(sys.argv[1])))
