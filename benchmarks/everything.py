"""All of the benchmarks, one after the other, on one device: `benchmarks/gpu.sh` runs this.

What is measured already is not measured again, so that it can be stopped, or killed, at any point.
"""

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks import growth, pipeline, roofline, step, whole

# The order is that of importance: what is cut off by a limit is what can best be missed.
PARTS = ("step", "whole", "roofline", "pairs", "pipeline", "growth")
MAINS: dict[str, Callable[..., Any]] = {
    "step": step.main,
    "pairs": step.main,
    "roofline": roofline.main,
    "pipeline": pipeline.main,
    "growth": growth.main,
}
TIMED: dict[str, Any] = {"rounds": 3, "steps": 20, "untimed": 5, "workers": 4, "compiled": True}
LARGE: dict[str, dict[str, Any]] = {
    "step": {"pairs": step.PAIRS[:1], **TIMED},
    "pairs": {"pairs": step.PAIRS[1:], **TIMED},
    "roofline": {"side": 8192, "copied": 1 << 28, "rounds": 20},
    "whole": {},
    "pipeline": {"timed": 40, "untimed": 10, "workers": (0, 4, 8, 16), "compiled": True},
    "growth": {"steps": 10},
}
MARGIN = 45.0  # seconds of a call: to import before its clock starts, to kill, to report
SMALL = "cifar_resnet8"
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
    "pairs": {**STEP, "only": ("as published, without input",)},
    "roofline": {"pairs": (f"{SMALL}:{SMALL}",), "batch_size": 4, "rounds": 1, "side": 64, "copied": 4096},
    "whole": {
        "teacher": SMALL,
        "student": SMALL,
        "teacher_epochs": 1,
        "head_epochs": 1,
        "epochs": 1,
        "batch_size": 32,
    },
    "pipeline": {
        "batch_size": 4,
        "untimed": 0,
        "timed": 1,
        "images": 16,
        "width": 48,
        "height": 40,
        "size": 32,
        "workers": (0,),
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
}


def main(
    out: Path,
    data: str | None = None,
    head_run: int | None = None,
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
        head_run: epochs of the whole pipeline's head that are run, to tell it from a part; all where it is not given.
        parts: what to measure.
        device: cpu, cuda, cuda:1...
        threads: of torch; what torch chooses where it is not given.
        limit: seconds that this call may take; the whole pipeline stops itself before, the rest is to be killed.
        tiny: a rehearsal.

    Raises:
        SystemExit: something failed, or the whole pipeline has not come to its end.
    """
    began, given, unfinished = time.monotonic(), TINY if tiny else LARGE, list[str]()
    if device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no GPU here: nothing was measured.")
    if not tiny and find_spec("torchdistill") is None:
        print("torchdistill is not installed, so the step is compared with the published one alone", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        student = out / "runs" / "student" / "result.json"
        if part not in parts or (
            part == "whole" and (data is None or ((out / "whole.json").exists() and student.exists()))
        ):
            continue
        print(f"\n{part}", flush=True)
        usual: dict[str, Any] = {"device": device, "out": out / f"{part}.json"}
        try:
            if part == "whole":
                left = max(limit - (time.monotonic() - began) - MARGIN, 1.0)
                whole.main(data=str(data), runs=out / "runs", limit=left, head_run=head_run, **usual, **given[part])
                unfinished += [] if student.exists() else [part]
            else:
                MAINS[part](**usual, threads=threads, **given[part])
        except (Exception, SystemExit) as error:  # what follows does not depend on it
            print(f"{part} failed: {type(error).__name__}: {error}", flush=True)
            unfinished.append(part)
    if unfinished:
        sys.exit(f"not finished: {', '.join(unfinished)}")


if __name__ == "__main__":
    auto_cli(main)
