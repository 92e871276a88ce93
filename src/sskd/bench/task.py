"""One training of a grid, as plain values that another process can be handed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sskd.errors import UserError
from sskd.reading import Reading
from sskd.run_files import read_result
from sskd.validation import convert

if TYPE_CHECKING:
    from sskd.jobs.job import Job


@dataclass(frozen=True)
class Task:
    """A teacher or a cell of the grid. `arguments` are those of `sskd.api`; `teacher` names the task to wait for."""

    name: str
    kind: Literal["teacher", "student"]
    folder: Path
    arguments: Mapping[str, Any]
    teacher: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # pair, method, seed ...: what tables are made of

    @property
    def finished(self) -> bool:
        """Whether the run has a result, and no file that only stands in its place."""
        try:
            return (path := self.folder / "result.json").exists() and bool(read_result(path))
        except UserError:
            return False

    @property
    def begun(self) -> bool:
        """Whether there is a run to continue."""
        return (self.folder / "config.json").exists()

    def text(self) -> str:
        """As JSON."""
        values = {
            **vars(self),
            "folder": str(self.folder),
            "arguments": dict(self.arguments),
            "facts": dict(self.facts),
        }
        return json.dumps(values)

    @classmethod
    def parsed(cls, text: str) -> "Task":
        """From JSON."""
        values = json.loads(text)
        return cls(**{**values, "folder": Path(values["folder"])})


def job_of(task: Task) -> "Job":
    """The training that a task is.

    Raises:
        UserError: arguments that cannot be.
    """
    from sskd.api import distillation, teaching  # torch: whoever reads results does without it

    arguments = dict(task.arguments)
    arguments["reading"] = convert(arguments.get("reading", {}), Reading, "reading")
    describe = teaching if task.kind == "teacher" else distillation
    return describe(out=str(task.folder), **arguments)


def perform(task: Task) -> dict[str, Any]:
    """Train, or continue, in this process.

    Raises:
        UserError: anything that the user can put right.
    """
    from sskd.api import carry_out

    return carry_out(job_of(task))


def changed(task: Task) -> str:
    """Why a run that is there is not the one that the task asks for; empty where it is, or where there is none."""
    from sskd.jobs.execute import refuse_changed

    try:
        if task.begun and task.arguments:
            refuse_changed(job_of(task))
    except UserError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    task: Task
    ok: bool
    message: str = ""  # why not
