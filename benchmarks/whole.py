"""How long SSKD's whole pipeline takes: the head's epochs, then the student's, with evaluation, from files to files.

`python -m benchmarks.whole --help`. The run is an ordinary one, in a folder, and goes on where it was stopped;
`--limit` stops it after so many seconds, so that it can be measured in pieces. What is there of it is told at any time,
with the time that all of it would take at the rate so far. The teacher is trained for a few epochs before: what the
pipeline costs does not depend on what the teacher knows, so one that is in the folder already does as well.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from benchmarks.lines import markdown
from benchmarks.results import RESULTS, Results
from benchmarks.tables import whole_table

LOOK = 0.5  # seconds between two looks at a run


def run(arguments: list[str], limit: float, enough: Callable[[], bool] = lambda: False) -> bool:
    """One call of the command line, for so many seconds or until there is enough; whether it ended by itself."""
    process, began = subprocess.Popen([sys.executable, "-m", "sskd", *arguments]), time.monotonic()
    while (code := process.poll()) is None:
        if time.monotonic() - began > limit or enough():
            process.kill()  # as a machine that is taken away would; the next call goes on from the last checkpoint
            process.wait()
            return False
        time.sleep(LOOK)
    if code:
        raise SystemExit(code)
    return True


def measured(found: dict[str, Any], student_run: int | None) -> bool:
    """Whether what is told of the pipeline is all that was asked for."""
    return bool(found["finished"]) or 0 < (student_run or 0) <= found["stages"]["student"]["epochs"]


def told(folder: Path, planned: dict[str, int]) -> dict[str, Any]:
    """Seconds per epoch of each stage so far, evaluation included, and what all planned epochs take at that rate."""
    log = folder / "log.jsonl"
    whole_lines = log.read_text().split("\n")[:-1] if log.exists() else []  # the run may be writing the next
    records = [json.loads(line) for line in whole_lines]
    stages: dict[str, Any] = {}
    for stage, epochs in planned.items():
        own = [record for record in records if record.get("stage") == stage and "seconds" in record]
        spent = [sum(record.get(key, 0.0) for record in own) for key in ("seconds", "evaluation_seconds")]
        last = own[-1] if own else {}
        stages[stage] = {
            "epochs": len(own),
            "planned": epochs,
            "training_seconds": spent[0],
            "evaluation_seconds": spent[1],
            "projected_seconds": sum(spent) / len(own) * epochs if own else None,
            "images_per_s": last.get("images_per_s"),
            "peak_mib": last.get("peak_mib"),
            "test": last.get("test"),
        }
    projected = [row["projected_seconds"] for row in stages.values()]
    config = folder / "config.json"
    return {
        "stages": stages,
        "projected_seconds": None if None in projected else sum(projected),
        "execution": json.loads(config.read_text()).get("execution") if config.exists() else None,
        "finished": (folder / "result.json").exists(),
    }


def main(
    data: str,
    runs: Path,
    teacher: str = "cifar_wrn_40_2",
    student: str = "cifar_wrn_16_2",
    teacher_epochs: int = 3,
    head_epochs: int = 60,
    head_run: int | None = None,
    epochs: int = 240,
    student_run: int | None = None,
    batch_size: int = 64,
    evaluate_every: int = 5,
    device: str = "cpu",
    limit: float = 1e9,
    out: Path | None = None,
) -> dict[str, Any]:
    """Run the pipeline, or go on with it, and write what it took as JSON.

    Args:
        data: the data set, as `sskd distill --data` takes it.
        runs: the folder for the runs.
        teacher: a network of the zoo or of timm.
        student: a network of the zoo or of timm.
        teacher_epochs: of the teacher's own training, which is not measured.
        head_epochs: of the head's stage.
        head_run: epochs of it that are run, where it is to be told from fewer than all.
        epochs: of the student's stage.
        student_run: epochs of it after which the run is stopped, where that is enough to tell the rest by.
        batch_size: images per step; each becomes four views.
        evaluate_every: epochs between two evaluations, each with a checkpoint.
        device: cpu, cuda, cuda:1...
        limit: seconds after which this call stops.
        out: the JSON file; results/whole-DEVICE.json of this repository where it is not given.
    """
    began = time.monotonic()
    settings = {"teacher": teacher, "student": student, "data": Path(data).name, "head_epochs": head_epochs}
    settings |= {"head_run": head_run, "student_run": student_run}
    settings |= {"epochs": epochs, "batch_size": batch_size, "evaluate_every": evaluate_every, "device": device}
    results = Results(out or RESULTS / f"whole-{device.partition(':')[0]}.json", "whole", settings)
    usual = ["--data", data, "--device", device, "--validation", "0", "--tensorboard", "false"]
    words = ["teacher", *usual, "--model", teacher, "--epochs", str(teacher_epochs), "--out", f"{runs}/teacher"]
    folder, planned = runs / "student", {"head": head_epochs, "student": epochs}
    if (runs / "teacher" / "result.json").exists() or run(words, limit):
        words = ["distill", *usual, "--student", student, "--teacher", f"{runs}/teacher", "--epochs", str(epochs)]
        words += ["--options.head_epochs", str(head_run or head_epochs), "--batch_size", str(batch_size)]
        words += ["--evaluate_every", str(evaluate_every), "--out", f"{runs}/student", "--cache", f"{runs}/cache"]
        run(words, limit - (time.monotonic() - began), lambda: measured(told(folder, planned), student_run))
    results.keep("pipeline", told(folder, planned))
    print("\n\n".join(markdown(table) for table in whole_table(results.values)))
    return results.values


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
