"""What stands under a table of few or wrong labels: what students, teachers and their heads saw."""

from collections.abc import Mapping, Sequence
from typing import Any

from sskd.bench.labels import Labels, percent
from sskd.bench.results import Cell


def labels_notes(cells: Sequence[Cell]) -> list[str]:
    """Sentences, from what the runs themselves state; none where all students saw all images with right labels."""
    done = [cell for cell in cells if cell.task.kind == "student" and cell.status == "finished"]
    seen = {cell.task.name: Labels.read(cell.facts) for cell in done}
    if all(labels == Labels() for labels in seen.values()):
        return []
    notes = [
        "Shares of the images and wrong labels are drawn once, the same for all methods and seeds; each run keeps them "
        "in labels.safetensors. Validation and test images have their right labels: they measure, nothing is learned "
        "from them."
    ]
    if any(labels.noise for labels in seen.values()):
        notes.append(
            "Symmetric noise takes one of all other classes, pair-flip the next one. Cross-entropy, CRD's negatives "
            "and the order of selective transfer go by the wrong labels."
        )
    if any(labels.same_steps for labels in seen.values()):
        notes.append("Students of few images have as many steps as those of all: so many times the epochs.")
    taught: dict[str, list[str]] = {}
    for cell in done:
        if cell.config.get("teacher") and (told := cell.config.get("labels")):
            taught.setdefault(_taught(told), []).append(seen[cell.task.name].short or "all images, right labels")
    for sentence, which in taught.items():
        where = "" if len(taught) == 1 else f"{'; '.join(dict.fromkeys(which))}: "
        notes.append(f"{where}{sentence}")
    return notes


def _taught(told: Mapping[str, Any]) -> str:
    teacher, shared = told["teacher"], told["shared_stages"]
    saw = "What the teacher saw is not stated with its weights"
    if teacher:
        wrong = f"{percent(teacher['noise'])} {teacher['noise_kind']} noise" if teacher["noise"] else "right labels"
        saw = f"The teacher saw {teacher['images']:,} images with {wrong}"
    labels = "right labels" if shared["labels"] == "clean" else "the student's labels"
    return f"{saw}; what is trained on it alone (heads, paraphrasers, branches), {shared['images']:,} with {labels}."
