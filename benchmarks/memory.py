"""Memory of one SSKD step with and without micro-batches and recomputed blocks, each in a process of its own.

`python -m benchmarks.memory --out results/memory-cpu.json`: the most memory that a process has held beyond what it held
before the step, and the step's seconds, for resnet34 -> resnet50 at 224 pixels, 4 images of 4 views.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sskd.data.source import DataInfo
from sskd.environment import environment
from sskd.files import write_json
from sskd.jobs.assemble import pair_of
from sskd.memory import peak_memory
from sskd.methods import METHODS
from sskd.methods.plan import Optim
from sskd.models.network import create_network
from sskd.models.normalisation import Normalisation
from sskd.train.gradients import gradients_of
from sskd.train.step import Execution, Step
from sskd.train.trial import dummy_batch

TEACHER, STUDENT, IMAGES, CLASSES = "resnet34", "resnet50", 4, 10
VARIANTS = {
    "as it is": Execution(),
    "recompute": Execution(recompute=True),
    "micro_batch 1": Execution(micro_batch=1),
    "micro_batch 1, recompute": Execution(micro_batch=1, recompute=True),
}


def step_and_batch(execution: Execution, size: int) -> tuple[Step, Any]:
    torch.manual_seed(0)
    shape, plain, names = (
        (3, size, size),
        Normalisation((0.5,) * 3, (0.2,) * 3, "benchmark"),
        tuple(map(str, range(CLASSES))),
    )
    teacher, student = (create_network(name, names, shape, plain) for name in (TEACHER, STUDENT))
    labels = torch.arange(IMAGES) % CLASSES
    data = DataInfo("dummy", IMAGES, names, labels, (0.5,) * 3, (0.2,) * 3, shape)
    plan = METHODS["sskd"](pair_of(student, teacher, data), epochs=1, optim=Optim(lr=0.1))
    stage = plan.stages[-1]
    for module in (teacher, *plan.modules.values()):
        module.requires_grad_(False).eval()
    return Step(stage, student, teacher, execution), dummy_batch(plan.views.views, stage, IMAGES, shape, execution)


def measured(name: str, size: int) -> dict[str, Any]:
    """One variant, in this process."""
    torch.set_num_threads(1)
    step, batch = step_and_batch(VARIANTS[name], size)
    gradients, before = gradients_of(step), peak_memory("cpu")
    began = time.perf_counter()
    gradients(batch)
    seconds = time.perf_counter() - began
    return {"peak_mib_of_the_step": peak_memory("cpu") - before, "seconds": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--variant", choices=[*VARIANTS], default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.variant:
        print(json.dumps(measured(given.variant, given.size)))
        return
    found = {}
    for name in VARIANTS:
        command = [sys.executable, "-m", "benchmarks.memory", "--size", str(given.size), "--variant", name]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{name:>26}  " + "  ".join(f"{key} {value:,}" for key, value in found[name].items()), flush=True)
    if given.out:
        conditions = {"teacher": TEACHER, "student": STUDENT, "images": IMAGES, "views": 4, "size": given.size}
        executions = {name: asdict(execution) for name, execution in VARIANTS.items()}
        write_json(
            given.out,
            {"conditions": conditions, "found": found, "executions": executions, "environment": environment()},
        )


if __name__ == "__main__":
    main()
