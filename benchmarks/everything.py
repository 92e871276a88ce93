"""All of the benchmarks, one after the other, on one device: `benchmarks/gpu.sh` runs this.

What is measured already is not measured again, so that it can be stopped, or killed, at any point.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks import constants, growth, many, memory, pipeline, roofline, step, whole
from benchmarks.variants import ALONE, PEER, WITH_INPUT, executions
from sskd.train.choose import title

# The order is that of importance: what is cut off by a limit is what can best be missed.
PARTS = ("step", "whole", "roofline", "memory", "imagenet", "pairs", "pipeline", "growth", "constants", "many")
MAINS: dict[str, Callable[..., Any]] = {
    "step": step.main,
    "roofline": roofline.main,
    "memory": memory.main,
    "imagenet": step.main,
    "pairs": step.main,
    "pipeline": pipeline.main,
    "growth": growth.main,
    "constants": constants.main,
    "many": many.main,
}
BEST = "ours, bf16 channels_last folded"
TIMED: dict[str, Any] = {"rounds": 3, "steps": 20, "untimed": 5, "workers": 4, "compiled": True}
# On an H200 a variant takes some 10 s to start and another 50 to compile; all of a pair start at once.
LARGE: dict[str, dict[str, Any]] = {
    "step": {"pairs": step.PAIRS[:1], **TIMED},
    "whole": {"teacher_epochs": 1, "head_run": 5, "student_run": 15},
    "roofline": {"side": 8192, "copied": 1 << 28, "rounds": 20},
    "memory": {
        "pairs": ("cifar_wrn_40_2:cifar_wrn_16_2:32", "resnet34:resnet18:224"),
        "batch_size": 64,
        "micro_batch": 16,
        "untimed": 2,
        "steps": 5,
    },
    "imagenet": {
        "pairs": ("resnet34:resnet18",),
        "side": 224,
        "images": 512,
        "classes": 1000,
        "epoch": 1_281_167,
        "only": (ALONE, BEST, f"{BEST} one CUDA graph", f"{BEST} compiled one CUDA graph"),
        **TIMED,
        "steps": 5,
        "peer": False,
    },
    "pairs": {
        "pairs": step.PAIRS[1:],
        "only": (ALONE, WITH_INPUT, PEER, BEST, f"{BEST} one CUDA graph", f"{BEST} compiled one CUDA graph"),
        **TIMED,
    },
    "pipeline": {"timed": 20, "untimed": 8, "workers": (0, 4, 16), "compiled": True},
    "growth": {
        "steps": 10,
        "rounds": 2,
        "batches": (32, 128, 512),
        "views": (2, 8),
        "classes": (100, 10_000),
        "images": (50_000, 250_000),
    },
    "constants": {"batch_size": 32, "sides": (128, 160, 224), "steps": 10, "product": 8192, "copied": 1 << 28},
    "many": {},
}
MARGIN = 45.0  # seconds of a call: to import before its clock starts, to kill, to report
SMALL, FASTEST = "cifar_resnet8", title(executions("cpu", 1, compiled=False)[-1])
STEP: dict[str, Any] = {
    "pairs": (f"{SMALL}:{SMALL}",),
    "batch_size": 4,
    "rounds": 1,
    "images": 16,
    "classes": 4,
    "peer": False,
}
TINY: dict[str, dict[str, Any]] = {
    "step": STEP,
    "whole": {
        "teacher": SMALL,
        "student": SMALL,
        "teacher_epochs": 1,
        "head_epochs": 1,
        "epochs": 1,
        "batch_size": 32,
    },
    "roofline": {"pairs": (f"{SMALL}:{SMALL}",), "batch_size": 4, "rounds": 1, "side": 64, "copied": 4096},
    "memory": {"pairs": (f"{SMALL}:{SMALL}:48",), "batch_size": 4, "micro_batch": 2, "classes": 4},
    "imagenet": {**STEP, "side": 48, "epoch": 1000, "only": (ALONE, f"ours, {FASTEST}")},
    "pairs": {**STEP, "peer": True, "only": (PEER, ALONE)},
    "pipeline": {
        "batch_size": 4,
        "untimed": 0,
        "timed": 1,
        "images": 16,
        "width": 48,
        "height": 40,
        "size": 32,
        "workers": (0,),
        "teacher": SMALL,
        "student": SMALL,
    },
    "growth": {
        "teacher": SMALL,
        "student": SMALL,
        "rounds": 1,
        "steps": 1,
        "batches": (4,),
        "views": (2,),
        "classes": (4,),
        "images": (16,),
        "widths": (8, 16),
    },
    "constants": {
        "pair": f"{SMALL}:{SMALL}",
        "sides": (32,),
        "batch_size": 4,
        "product": 64,
        "copied": 4096,
        "least": 0.01,
    },
    "many": {
        "pair": f"{SMALL}:{SMALL}",
        "side": 32,
        "batch_size": 4,
        "rounds": 1,
        "steps": 1,
        "images": 16,
        "classes": 4,
    },
}


def main(
    out: Path,
    data: str | None = None,
    all_epochs: bool = False,
    parts: tuple[str, ...] = PARTS,
    device: str = "cuda",
    threads: int | None = None,
    limit: float = 540.0,
    tiny: bool = False,
) -> None:
    """Measure what is not measured yet.

    Args:
        out: the folder for the JSON files and, of the whole pipeline, the runs.
        data: CIFAR-100 as `sskd distill` takes it; without it the whole pipeline is left out.
        all_epochs: run the whole pipeline to its end; else its stages are told from their first epochs.
        parts: what to measure.
        device: cpu, cuda, cuda:1...
        threads: of torch; what torch chooses where it is not given.
        limit: seconds that this call may take; the whole pipeline stops itself before, the rest is to be killed.
        tiny: a rehearsal.

    Raises:
        SystemExit: something failed, or the whole pipeline has not come as far as it was to.
    """
    began, given, unfinished = time.monotonic(), TINY if tiny else LARGE, list[str]()
    if device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no GPU here: nothing was measured.")
    if not tiny and find_spec("torchdistill") is None:
        print("torchdistill is not installed, so the step is compared with the published one alone", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    for part in (one for one in PARTS if one in parts):
        print(f"\n{part}", flush=True)
        usual: dict[str, Any] = {"device": device, "out": out / f"{part}.json"}
        try:
            if part == "whole":
                left = max(limit - (time.monotonic() - began) - MARGIN, 1.0)
                asked = given[part] | ({"head_run": None, "student_run": None} if all_epochs else {})
                unfinished += [] if pipeline_measured(data, out, left, asked, usual) else [part]
            else:
                MAINS[part](**usual, threads=threads, **given[part])
        except (Exception, SystemExit) as error:  # what follows does not depend on it
            print(f"{part} failed: {type(error).__name__}: {error}", flush=True)
            unfinished.append(part)
    if unfinished:
        sys.exit(f"not finished: {', '.join(unfinished)}")


def pipeline_measured(data: str | None, out: Path, limit: float, asked: dict[str, Any], usual: dict[str, Any]) -> bool:
    """Go on with the whole pipeline, if it is not measured yet; whether it is now, or is not to be."""
    if data is None:
        print("left out: there is no --data")
        return True
    enough, there = asked.get("student_run"), usual["out"]
    if there.exists() and whole.measured(json.loads(there.read_text())["parts"]["pipeline"], enough):
        return True
    found = whole.main(data=data, runs=out / "runs", limit=limit, **usual, **asked)
    return whole.measured(found["parts"]["pipeline"], enough)


if __name__ == "__main__":
    auto_cli(main)
