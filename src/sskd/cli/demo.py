"""`sskd demo`: the main job on real images that need no download."""

import statistics
from pathlib import Path
from typing import Any

from sskd.api import distill, train_teacher
from sskd.files import read_json
from sskd.methods.plan import Optim
from sskd.ranges import need_between, refuse_empty
from sskd.terminal import Table, Terminal
from sskd.train.protocols import Record

LABELS = 0.05  # share of the training images that the student sees
TEACHER, STUDENT = "cifar_resnet20", "cifar_resnet8"
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "student alone": ("ce", {}),
    "KD": ("kd", {}),
    "SSKD": ("sskd", {"head_epochs": 10}),
}


def demo(out: str = "runs/demo", seeds: int = 3, epochs: int = 240) -> None:
    """Train a teacher, its head and small students on handwritten digits with 5 % of the labels, in a few minutes.

    Args:
        out: where the run directories go; what is finished there is not trained again.
        seeds: students per method.
        epochs: of each student; one epoch is one step of 32 images.

    Raises:
        UserError: no seeds or no epochs.
    """
    refuse_empty(out=out)
    need_between("seeds", seeds, 1)
    need_between("epochs", epochs, 1)
    folder, console = Path(out), Terminal()
    common: dict[str, Any] = {
        "batch_size": 32,
        "validation": 0.0,
        "optim": Optim(lr=0.1, schedule="onecycle"),
        "flip": 0.0,  # a mirrored digit is not that digit
        "tensorboard": False,
    }
    teacher_run = folder / "teacher"
    teacher = train_teacher("digits", TEACHER, out=str(teacher_run), epochs=15, evaluate_every=5, **common)
    # Measured once, for the teacher, so that all students run alike.
    execution = read_json(teacher_run / "config.json")["execution"]
    common |= {key: execution[key] for key in ("precision", "channels_last", "threads")}
    students: dict[str, list[Record]] = {}
    for title, (method, options) in ROWS.items():
        students[title] = [
            distill(
                STUDENT,
                "digits",
                teacher=str(teacher_run) if method != "ce" else None,
                method=method,
                options=options,
                fraction=LABELS,
                out=str(folder / f"{method}-seed{seed}"),
                seed=seed,
                epochs=epochs,
                evaluate_every=max(epochs // 4, 1),
                **common,
            )
            for seed in range(seeds)
        ]
    data = read_json(folder / "sskd-seed0" / "config.json")["data"]
    console.print(_table(teacher, students, data))
    console.print(_next_steps(folder), highlight=False, soft_wrap=True)


def _table(teacher: Record, students: dict[str, list[Record]], data: dict[str, Any]) -> Table:
    few = f"{data.get('train_images', '?')} of {data.get('teacher_images', '?')}"
    table = Table(title=f"Handwritten digits, {data.get('test_images', '?')} test images: top-1 accuracy, last epoch")
    table.add_column("")
    for column in ("labelled images", "mean %", "deviation", "n", "parameters", "seconds each"):
        table.add_column(column, justify="right")
    for title, labels, results in [
        ("teacher", str(data.get("teacher_images", "?")), [teacher]),
        *((title, few, results) for title, results in students.items()),
    ]:
        scores = [100 * result["last"]["test"]["top1"] for result in results]
        deviation = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else "-"
        seconds = statistics.mean(result["seconds"] for result in results)
        parameters = f"{results[0]['parameters']:,}"
        table.add_row(
            title, labels, f"{statistics.mean(scores):.2f}", deviation, str(len(scores)), parameters, f"{seconds:.1f}"
        )
    table.caption = (
        "One teacher; the seeds vary the student's initial weights and batches, on the same labelled images. "
        "The teacher and its self-supervision head saw all training images. No validation split."
    )
    return table


def _next_steps(folder: Path) -> str:
    return "\n".join(
        (
            f"Run directories: {folder}/ (config.json, log.jsonl, student/ for timm, result.json in each).",
            "Next (in .venv/bin):",
            f"  sskd evaluate --network {folder}/sskd-seed0 --data digits",
            f"  sskd distill --student cifar_resnet8 --data digits --teacher {folder}/teacher --fraction 0.02 "
            "--epochs 240 --batch_size 20 --validation 0 --flip 0",
            "  sskd list methods      sskd distill --help",
        )
    )
