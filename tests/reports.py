"""Run directories, benches, studies and analyses made by hand, for tests of reports."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

CLASSES = ["apple", "bear & <b>cub</b>", "chair", "dolphin"]
GAINS = {"ce": 0.0, "kd": 2.0, "sskd": 5.0, "at": 3.0}
TEACHER, STUDENT = "cifar_wrn_40_2", "cifar_wrn_16_2"


def config(method: str, seed: int, epochs: int = 4, teacher: str | None = None, **data: Any) -> dict[str, Any]:
    """What a run's config holds, as far as reports read it."""
    training = {"epochs": epochs, "batch_size": 64, "optim": {"lr": 0.1, "schedule": "onecycle"}, "seed": seed}
    terms = {"ce": 1.0} if method == "ce" else {"ce": 0.1, method: 0.9}
    head = [{"name": "head", "epochs": 1, "trains": ["head"], "loss": {"ss": 1.0}}] if method == "sskd" else []
    return {
        "arguments": {
            "network": STUDENT if teacher else TEACHER,
            "data": "some place/of data",
            "method": method,
            "fraction": 1.0,
            "options": {"weight": 0.9} if teacher else {},
            "training": training,
            "reading": {"test_share": 0.2, "stream": False},
            "teacher": {"place": teacher, "architecture": None} if teacher else None,
        },
        "data": {"name": "cifar100", "train_images": 49000, "test_images": 10000, "validation_images": 1000, **data},
        "teacher": {"architecture": TEACHER} if teacher else {},
        "stages": [*head, {"name": "student", "epochs": epochs, "trains": ["student"], "loss": terms}],
        "class_names": CLASSES,
        "environment": {"command": "worker.py", "processor": "some processor", "torch": "2.0"},
        "execution": {"precision": "bf16", "threads": 1},
    }


def records(method: str, seed: int, epochs: int = 4, gain: float = 0.0) -> list[dict[str, Any]]:
    """A log: accuracy rises towards 70 % and the gain, losses fall."""
    found = []
    if method == "sskd":
        loss = {"total": 2.0, "ss": 2.0}
        found.append({"stage": "head", "epoch": 1, "seconds": 9.0, "cpu_seconds": 8.0, "loss": loss, "train": {}})
    for epoch in range(1, epochs + 1):
        done = 1 - math.exp(-3 * epoch / epochs)
        top1 = (0.7 + gain / 100 + 0.004 * math.sin(7 * seed + gain)) * done
        loss = {"total": 3 - 2 * done, "ce": 2.5 - 2 * done} | ({} if method == "ce" else {method: 1.5 - done})
        splits = {"train": {"top1": top1 + 0.05}, "validation": {"top1": top1 + 0.01}, "test": {"top1": top1}}
        cost = {"seconds": 12.0 + 3 * gain, "cpu_seconds": 10.0 + 3 * gain, "peak_mib": 900, "images_per_s": 500.0}
        found.append({"stage": "student", "epoch": epoch, "lr": 0.1 * (1 - done), **cost, "loss": loss, **splits})
    return found


def write_run(folder: Path, config: dict[str, Any], records: Sequence[dict[str, Any]], finished: bool = True) -> Path:
    """A run directory."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    if finished:
        result = {"last": records[-1], "best": records[-1], "parameters": 1000, "method": config["arguments"]["method"]}
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def write_grid(
    top: Path, methods: Sequence[str] = tuple(GAINS), seeds: int = 2, epochs: int = 4, pairs: int = 1
) -> Path:
    """Teachers and cells as a bench lays them out, without its table."""
    for pair in range(pairs):
        teacher = top / "teachers" / f"{TEACHER}-seed{pair}"
        write_run(teacher, config("ce", pair, epochs), records("ce", 9, epochs, 6.0))
        for method in methods:
            gain = GAINS.get(method, hash_of(method))
            for seed in range(seeds):
                folder = top / "cells" / f"{TEACHER}--{STUDENT}-{pair}" / f"{method}-seed{seed}"
                own = config(method, seed, epochs, teacher.as_posix())
                own["arguments"]["network"] += f"-{pair}" if pair else ""
                write_run(folder, own, records(method, seed, epochs, gain))
    return top


def hash_of(text: str) -> float:
    """A number from 0 to 4 that is always the same."""
    return sum(map(ord, text)) % 41 / 10


def thumbnail(path: Path, shade: int) -> None:
    """A small image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).point(lambda v: (v + shade) % 256).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue())


def write_analyses(run: Path) -> None:
    """What `sskd similarity`, `inspect` and `probe` leave in a run."""
    folder, n = run / "analyses", 8
    for i in range(n):
        thumbnail(folder / "similarity" / f"{i}.jpg", 30 * i)
        thumbnail(folder / "inspect" / f"{i}.jpg", 25 * i)
    names = {"student": ["stage1", "stage2"], "teacher": ["stage1", "stage2", "pooled"]}
    square = [[round(math.cos((i - j) / 3), 3) for j in range(n)] for i in range(n)]
    thumbnails = [f"similarity/{i}.jpg" for i in range(n)]
    ss = {"student": square, "teacher": square, "classes": [CLASSES[i % 4] for i in range(n)], "thumbnails": thumbnails}
    similarity = {"kind": "similarity", "data": "cifar100", "split": "test", "images": 1000, "stages": names,
                  "predictions": {"kl": 0.31, "kl_temperature": 4.0, "agreement": 0.78}, "ss": ss,
                  "cka": [[0.91, 0.52, 0.3], [0.44, 0.87, None]], "l2": {"stage1": 0.2, "stage2": None}}  # fmt: skip
    bins = [{"confidence": 0.05 + i / 10, "accuracy": 0.04 + 0.09 * i, "count": 10 * i} for i in range(10)]
    noisy = [{"image": f"inspect/{i}.jpg", "image_class": CLASSES[1], "taken_for": f"inspect/{(i + 3) % n}.jpg",
              "taken_for_class": CLASSES[0], "view": 2, "rank": i + 1, "kept": i < 5} for i in range(n)]  # fmt: skip
    points = [{"x": math.cos(i), "y": math.sin(i * 1.3), "class": CLASSES[i % 4], "side": side}
              for i in range(60) for side in ("student", "teacher")]  # fmt: skip
    classes = [{"class": name, "images": 100, "top1": 0.6 + 0.05 * i} for i, name in enumerate(CLASSES)]
    levels: dict[str, Any] = {
        "ss": {"edges": [0, 1, 2, 3, 4], "counts": [50, 20, 9, 3]},
        "tf": {"edges": [0, 1, 2], "counts": [7, 5]},
    }
    levels |= {"none": None}  # as of a method without a head
    inspect = {"kind": "inspect", "data": "cifar100", "split": "train", "images": 1000, "error_levels": levels,
               "noisy": noisy, "embedding": {"method": "t-SNE", "points": points}, "per_class": classes,
               "teacher_per_class": classes, "calibration": {"ece": 0.04, "bins": bins},
               "teacher_calibration": {"ece": 0.02, "bins": bins[2:]}}  # fmt: skip
    probe = {"kind": "probe", "data": "stl10", "network": "student", "linear": {"top1": 0.71}, "knn": {"top1": 0.66}}
    for name, values in {"similarity": similarity, "inspect": inspect, "probe-stl10": probe}.items():
        (folder / f"{name}.json").write_text(json.dumps(values))


def write_study(top: Path, name: str = "few-labels") -> Path:
    """A study's folder beside teachers and cells."""
    xs = [0.25, 0.5, 1.0]
    series = [
        {"label": method, "method": method, "points": [
            {"x": x, "n": 2, "of": 2, "mean": 40 + 30 * x + gain, "deviation": 0.8, "values": {"0": 1.0, "1": 2.0}}
            for x in xs]}
        for method, gain in GAINS.items()
    ]  # fmt: skip
    study = {"study": name, "question": "What do few labels cost?", "about": "Shares of the training images.",
             "x": {"name": "fraction", "label": "share of the training images", "values": xs}, "series": series,
             "notes": ["The teacher saw all images."], "command": f"sskd study {name} --data cifar100"}  # fmt: skip
    folder = top / name
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(study))
    (folder / "table.json").write_text(json.dumps({"recipe": {"name": name}, "rows": [], "runs": []}))
    return folder
