"""What can be refused of a grid before anything is trained."""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from timm.models import is_model, split_model_name_tag

from sskd.bench.task import Task, job_of
from sskd.data import load_source
from sskd.data.source import Source
from sskd.data.splits import cut
from sskd.errors import UserError
from sskd.jobs.assemble import Prepared, pair_of, planned, prepare
from sskd.jobs.job import Job
from sskd.jobs.teachers import fresh
from sskd.models.folders import FUNCTION, TORCHVISION
from sskd.models.load import WEIGHTS
from sskd.models.taps import parse_taps
from sskd.reading import Reading
from sskd.settings import Training
from sskd.validation import convert

USUAL = {one.name: one.default for one in fields(Training)}


class Sources:
    """Data sets of a grid, each read once."""

    def __init__(self) -> None:
        self._read: dict[str, Source] = {}

    def of(self, task: Task) -> Source:
        """The data of a task.

        Raises:
            UserError: it cannot be read.
        """
        data, reading = task.arguments["data"], task.arguments.get("reading", {})
        place = str((data, reading))
        if place not in self._read:
            self._read[place] = load_source(data, convert(reading, Reading, "reading"))
        return self._read[place]


def refuse_labels(tasks: Sequence[Task], sources: Sources) -> None:
    """Draw once what the unfinished students of few or wrong labels will see: a teacher may take hours before them.

    Raises:
        UserError: a share that leaves a class without an image, noise on one class, data that cannot be read.
    """
    seen = list[Any]()
    for task in tasks:
        given = _cut_of(task)
        place = str((task.arguments.get("data"), task.arguments.get("reading")))
        if task.finished or given is None or (place, given) in seen:
            continue
        seen.append((place, given))
        cut(sources.of(task), *given)


def refuse_missing(tasks: Sequence[Task]) -> None:
    """Refuse weights that a recipe gives for a teacher and that are on no disk, under no address and no known name.

    Raises:
        UserError: names the first.
    """
    for task in tasks:
        if task.kind == "student" and task.teacher is None and not task.finished:
            place = str(task.arguments["teacher"])
            if _is_missing(place):
                raise UserError(
                    f"There are no weights at {place}, which the recipe gives for {task.facts['teacher']}. Mend the "
                    "path under teachers, or leave it out to have a teacher trained."
                )


def _is_missing(place: str) -> bool:
    path = Path(place.removeprefix("local-dir:"))
    if path.exists() or place.startswith(("hf-hub:", TORCHVISION)) or FUNCTION.fullmatch(place):
        return False
    return path.suffix in WEIGHTS or not is_model(split_model_name_tag(place)[0])


def _cut_of(task: Task) -> tuple[Any, ...] | None:
    """The arguments of `cut`; None of teachers, and of students that see all images with right labels."""
    given = {**USUAL, "fraction": 1.0, **task.arguments}
    if task.kind == "teacher" or (given["fraction"] == 1 and given["per_class"] is None and not given["noise"]):
        return None
    names = ("validation", "fraction", "split_seed", "per_class", "noise", "noise_kind")
    return tuple(given[name] for name in names)


def misfits(tasks: Sequence[Task], sources: Sources) -> dict[str, str]:
    """Why students cannot be trained, by task, of those that wait for a teacher; and teachers whom nobody is left for.

    Each method is planned on fresh networks in the place of the trained ones. Where the data cannot be read here,
    nothing is said: the trainings will say it.
    """
    open_ = {task.name for task in tasks if task.kind == "teacher" and not task.finished}
    waiting = [task for task in tasks if task.teacher in open_ and not task.begun]
    found, parts, tried = dict[str, str](), dict[str, Prepared | str](), dict[str, str]()
    for task in waiting:
        given = {key: value for key, value in task.arguments.items() if key not in ("seed", "cache", "teacher")}
        given["teacher"] = task.facts["teacher"]  # the network; where it will lie does not matter here
        method = json.dumps(given)
        if method not in tried:
            networks = json.dumps({key: value for key, value in given.items() if key not in ("method", "options")})
            if networks not in parts:
                parts[networks] = _prepared(task, sources)
            tried[method] = _why_not(task, parts[networks])
        if tried[method]:
            found[task.name] = tried[method]
    for teacher in open_:
        students = [task for task in tasks if task.teacher == teacher and not task.finished]
        if students and all(task.name in found for task in students):
            found[teacher] = f"none of its students can be trained: {found[students[0].name]}"
    return found


def _prepared(task: Task, sources: Sources) -> Prepared | str:
    """Images and fresh networks of a task; or why they cannot be made. Empty where the data cannot be read."""
    try:
        source = sources.of(task)
    except UserError:
        return ""
    try:
        job = job_of(task)
        parts = prepare(replace(job, teacher=None), source)
        taps = parse_taps(job.teacher_taps)
        teacher = fresh(str(task.facts["teacher"]), source, parts.pair.data.image_shape, None, taps)
        return replace(parts, teacher=teacher, pair=pair_of(parts.student, teacher, parts.pair.data))
    except UserError as error:
        return str(error)


def _why_not(task: Task, parts: Prepared | str) -> str:
    if isinstance(parts, str):
        return parts
    try:
        job: Job = job_of(task)
        planned(job, parts, job.method)
    except UserError as error:
        return str(error)
    return ""
