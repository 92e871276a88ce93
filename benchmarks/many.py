"""How much faster several GPUs train than one: under torchrun, with similarities of the whole batch or of parts.

`python -m benchmarks.many --help`. Each process has as many images as the one alone, so that the step stays the same
but for the messages and, with `global`, the larger similarity. One process takes its step as a run would (on a GPU as
one CUDA graph); what several send cannot be recorded.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks.lines import markdown
from benchmarks.member import Task
from benchmarks.results import RESULTS, Results
from benchmarks.tables import many_table
from sskd.train.distributed import Relations

HERE = Path(__file__).parents[1]


def together(task: Task, processes: int) -> dict[Relations, Any]:
    """What the first of so many processes has measured, by relations.

    Raises:
        RuntimeError: one of them failed; its message, and torchrun's summary, are on the terminal.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [
        sys.executable,
        *(torchrun if processes > 1 else []),
        "-m",
        "benchmarks.member",
        json.dumps(asdict(task)),
    ]
    if code := subprocess.run(command, cwd=HERE).returncode:
        raise RuntimeError(f"of {processes} processes one failed, and the command ended with {code}")
    found: dict[Relations, Any] = json.loads(Path(task.out).read_text())
    return found


def main(
    pair: str = "resnet34:resnet18",
    side: int = 224,
    batch_size: int = 64,
    processes: int | None = None,
    rounds: int = 3,
    steps: int = 10,
    images: int = 512,
    classes: int = 1000,
    compiled: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure one process, then several, and write the result as JSON. One GPU alone is told as skipped.

    Args:
        pair: TEACHER:STUDENT, networks of the zoo or of timm.
        side: of an image, in pixels.
        batch_size: images per step of each process; each becomes four views.
        processes: how many; as many as there are GPUs, or 2 on the CPU, where it is not given.
        rounds: medians and quartiles are over these.
        steps: timed steps of each round.
        images: size of the data set of random images, at least.
        classes: number of classes.
        compiled: by torch.compile.
        device: cpu or cuda.
        threads: of each process; one where it is not given.
        out: the JSON file; results/many-DEVICE.json of this repository where it is not given.
    """
    count = processes or (torch.cuda.device_count() if device.startswith("cuda") else 2)
    settings = {"pair": pair, "side": side, "batch_size": batch_size, "processes": processes, "rounds": rounds}
    settings |= {"steps": steps, "images": images, "classes": classes, "compiled": compiled}
    settings |= {"device": device, "threads": threads or 1}
    results = Results(out or RESULTS / f"many-{device}.json", "many", settings)
    if count < 2:
        results.keep("skipped", "this needs several GPUs; here is one")
    else:
        results.parts.pop("skipped", None)  # of a machine with fewer
        wanted: list[tuple[int, list[Relations]]] = [(1, ["global"]), (count, ["global", "per_device"])]
        for size, relations in wanted:
            names = {one: "one process" if size == 1 else f"{size} processes, {one}" for one in relations}
            if any(name not in results for name in names.values()):
                for one, row in _measured(settings, size, relations).items():
                    results.keep(names[one], row)
    print("\n\n".join(markdown(table) for table in many_table(results.values)))
    return results.values


def _measured(settings: dict[str, Any], size: int, relations: list[Relations]) -> dict[Relations, Any]:
    teacher, student = settings["pair"].split(":")
    given = {name: value for name, value in settings.items() if name not in ("pair", "processes")}
    with tempfile.TemporaryDirectory() as folder:
        task = Task(teacher=teacher, student=student, relations=relations, out=f"{folder}/found.json", **given)
        return together(task, size)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
