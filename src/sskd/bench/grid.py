"""The trainings that a recipe comes to: teachers, and a cell for each pair, label, seed, fraction and noise."""

from collections.abc import Sequence
from pathlib import Path

from sskd.bench.labels import Labels
from sskd.bench.recipe import Duo, Recipe, slug
from sskd.bench.task import Task
from sskd.errors import UserError
from sskd.models.folders import is_factory
from sskd.models.load import WEIGHTS
from sskd.settings import Training


def tasks_of(recipe: Recipe, out: Path) -> list[Task]:
    """All trainings of a recipe, teachers first.

    Raises:
        UserError: two that would share a folder.
    """
    pairs = [(duo, labels) for duo in recipe.pairs for labels in recipe.labels]
    teachers = {(duo.teacher, _taught(labels)): _teacher(recipe, duo.teacher, labels, out) for duo, labels in pairs}
    cells = [
        _cell(recipe, duo, label, seed, labels, teachers[duo.teacher, _taught(labels)], out)
        for seed in recipe.seeds  # one seed of everything before the next
        for duo, labels in pairs
        for label in recipe.methods
        if label not in duo.skip
    ]
    tasks = [*(task for task in teachers.values() if task.arguments), *cells]
    _refuse_shared(tasks)
    return tasks


def _refuse_shared(tasks: Sequence[Task]) -> None:
    seen: dict[Path, Task] = {}
    for task in tasks:
        if (first := seen.setdefault(task.folder, task)) is not task:
            raise UserError(
                f"Two trainings of the recipe would share the folder {task.folder}: {dict(first.facts)} and "
                f"{dict(task.facts)}. Give each pair, label, seed, fraction and noise once, and labels that differ in "
                "more than signs."
            )


def _taught(labels: Labels) -> Labels:
    """What the teacher of such a cell sees."""
    return labels if labels.teacher_saw == "same" else Labels()


def _teacher(recipe: Recipe, network: str, labels: Labels, out: Path) -> Task:
    labels = _taught(labels)
    name = f"{slug(network)}{labels.suffix}-seed{recipe.teacher_seed}"
    facts = {"teacher": network, "seed": recipe.teacher_seed}
    if network in recipe.teachers:
        return Task(name, "teacher", Path(recipe.teachers[network]), {}, facts=facts)
    arguments = {**recipe.training, **recipe.teacher_training, "seed": recipe.teacher_seed}
    arguments |= labels.arguments(arguments, Training.epochs)
    arguments |= {"fraction": labels.fraction} if labels.fraction != 1 else {}
    arguments |= {"data": recipe.data, "model": network} | ({"reading": recipe.reading} if recipe.reading else {})
    return Task(name, "teacher", out / "teachers" / name, arguments, facts=facts)


def _cell(recipe: Recipe, duo: Duo, label: str, seed: int, labels: Labels, teacher: Task, out: Path) -> Task:
    method = recipe.method_of(label)
    name = f"{duo.name}/{slug(label)}{labels.suffix}-seed{seed}"
    options = recipe.options_of(label, duo)
    arguments = {**recipe.training, "seed": seed, "data": recipe.data, "student": duo.student, "method": method}
    arguments |= labels.arguments(recipe.training, Training.epochs)
    arguments |= {"options": options, "fraction": labels.fraction, "cache": str(out / "cache")}
    arguments |= {"teacher": str(teacher.folder)}
    if is_factory(duo.teacher) or teacher.folder.suffix in WEIGHTS:  # a folder that names its function, a bare file
        arguments |= {"teacher_architecture": duo.teacher}
    if labels.teacher_saw == "same":
        arguments |= {"teacher_data": "subset", "teacher_labels": "noisy"}
    taps = {"student_taps": duo.student_taps, "teacher_taps": duo.teacher_taps}
    arguments |= {key: dict(value) for key, value in taps.items() if value}
    arguments |= {"reading": recipe.reading} if recipe.reading else {}
    facts = {"teacher": duo.teacher, "student": duo.student, "label": label, "method": method, "seed": seed}
    facts |= {**labels.facts, "options": options}
    return Task(name, "student", out / "cells" / name, arguments, teacher.name if teacher.arguments else None, facts)
