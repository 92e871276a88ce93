"""What can be refused of a grid before anything is trained."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sskd.bench.task import Task
from sskd.data import load_source
from sskd.data.source import Source
from sskd.data.splits import cut
from sskd.reading import Reading
from sskd.settings import Training
from sskd.validation import convert

USUAL = {one.name: one.default for one in fields(Training)}


def refuse_labels(tasks: Sequence[Task]) -> None:
    """Draw once what the unfinished students of few or wrong labels will see: a teacher may take hours before them.

    Raises:
        UserError: a share that leaves a class without an image, noise on one class, data that cannot be read.
    """
    sources, seen = dict[str, Source](), list[Any]()
    for task in tasks:
        given = _cut_of(task)
        place = str((task.arguments.get("data"), task.arguments.get("reading")))
        if task.finished or given is None or (place, given) in seen:
            continue
        seen.append((place, given))
        if place not in sources:
            sources[place] = load_source(task.arguments["data"], convert(task.arguments.get("reading", {}), Reading, "reading"))
        cut(sources[place], *given)


def _cut_of(task: Task) -> tuple[Any, ...] | None:
    """The arguments of `cut`; None of teachers, and of students that see all images with right labels."""
    given = {**USUAL, "fraction": 1.0, **task.arguments}
    if task.kind == "teacher" or (given["fraction"] == 1 and given["per_class"] is None and not given["noise"]):
        return None
    names = ("validation", "fraction", "split_seed", "per_class", "noise", "noise_kind")
    return tuple(given[name] for name in names)
