"""One training of a grid, as plain values that another process can be handed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sskd.api import distill, train_teacher
from sskd.data.reading import Reading
from sskd.files import read_json
from sskd.jobs.job import usual_arguments
from sskd.methods.plan import Optim
from sskd.runs import flat
from sskd.train.protocols import Record


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
        """Whether the run has a result."""
        return (self.folder / "result.json").exists()

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


def perform(task: Task) -> Record:
    """Train, or continue, in this process.

    Raises:
        UserError: anything that the user can put right.
    """
    arguments = dict(task.arguments)
    arguments["optim"] = Optim(**arguments.get("optim", {}))
    arguments["reading"] = Reading(**arguments.get("reading", {}))
    run = train_teacher if task.kind == "teacher" else distill
    return run(out=str(task.folder), **arguments)


def differences(task: Task) -> list[str]:
    """In what a run that is there differs from what the task asks for; empty where it does not, or is not there."""
    if not task.begun or not task.arguments:
        return []
    kept = read_json(task.folder / "config.json").get("arguments", {})
    asked = dict(task.arguments)
    usual = json.loads(json.dumps(usual_arguments()))  # the run may be older than an argument
    then = {**usual, **usual["training"], **kept, **kept.get("training", {})}
    then["teacher"] = (kept.get("teacher") or {}).get("place")
    network = asked.pop("model" if task.kind == "teacher" else "student")
    asked = flat({**asked, "network": network})
    found = {name: flat(then).get(name) for name in asked if name not in _ELSEWHERE}
    return [
        f"{name}: {found[name]!r} there, {asked[name]!r} asked"
        for name in found
        if found[name] != json.loads(json.dumps(asked[name]))  # lists for tuples; 1000 is 1000.0
    ]


_ELSEWHERE = ("cache", "threads", "device", "tensorboard", "workers", "checkpoint_every")  # of no account for a result


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    task: Task
    ok: bool
    message: str = ""  # why not
