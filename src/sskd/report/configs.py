"""Every run's line, config and command, without saying a thousand times what they share."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sskd.files import flat
from sskd.report.command import command_of
from sskd.report.found import FoundRun, Values
from sskd.report.sections import Section

_LEFT_OUT = ("class_names", "sha256", "measured_seconds_per_step", "environment.command")
_WORDS = {"finished": "finished", "running": "running", "begun": "not finished", "broken": "broken"}
LONG = 160  # characters of a value that are shown


@dataclass(frozen=True)
class RunLine:
    """A run in the list of all."""

    folder: str
    state: str
    word: str
    problem: str
    label: str
    seed: Any
    epochs: str
    last: float | None
    best: float | None
    seconds: float | None
    unit: str


@dataclass(frozen=True)
class Kind:
    """Runs that differ in nothing but their seed."""

    label: str
    seeds: str
    command: str
    own: Mapping[str, str]


@dataclass(frozen=True)
class Configs:
    """The configs of a section: what all share, and each kind's own."""

    title: str
    shared: Mapping[str, str]
    kinds: Sequence[Kind]


def run_lines(sections: Sequence[Section]) -> list[RunLine]:
    """All runs, each once."""
    lines: dict[str, RunLine] = {}
    for section in sections:
        for run in section.runs:
            lines.setdefault(run.folder.as_posix(), _line(run, section))
    return list(lines.values())


def label_of(run: FoundRun, section: Section) -> str:
    """What the table calls it."""
    if section.is_teacher(run) and run.folder not in section.labels:
        return f"teacher {run.arguments.get('network', '')}".strip()
    return section.labels.get(run.folder) or str(run.arguments.get("method") or "")


def _line(run: FoundRun, section: Section) -> RunLine:
    result, training = run.result or {}, run.arguments.get("training") or {}
    stages = run.config.get("stages") or []
    of = sum(int(one.get("epochs", 0)) for one in stages)
    epochs = f"{run.done} of {of}" if of and run.state != "finished" else str(run.done or "")
    return RunLine(run.folder.as_posix(), run.state, _WORDS[run.state], run.problem, label_of(run, section),
                   training.get("seed", ""), epochs, _top1(result.get("last")), _top1(result.get("best")),
                   run.seconds or None, run.unit)  # fmt: skip


def _top1(record: Any) -> float | None:
    share = ((record or {}).get("test") or {}).get("top1")
    return 100 * share if isinstance(share, int | float) else None


def configs_of(sections: Sequence[Section]) -> list[Configs]:
    """The configs of all sections that have runs; what sections share is told in the first."""
    found, listed = [], set[Path]()
    for section in sections:
        kinds: dict[str, list[FoundRun]] = {}
        for run in section.runs:
            if run.arguments and run.folder not in listed:
                listed.add(run.folder)
                kinds.setdefault(_but_for_seed(run.arguments), []).append(run)
        if not kinds:
            continue
        values = {key: _texts(runs[0].config) for key, runs in kinds.items()}
        every = list(values.values())
        shared = {name: text for name, text in every[0].items() if all(one.get(name) == text for one in every)}
        each = [_kind(runs, section, {k: v for k, v in values[key].items() if k not in shared})
                for key, runs in kinds.items()]  # fmt: skip
        found.append(Configs(section.title, shared, each))
    return found


def _but_for_seed(arguments: Values) -> str:
    training = {name: value for name, value in (arguments.get("training") or {}).items() if name != "seed"}
    return json.dumps({**arguments, "training": training}, sort_keys=True)


def _texts(config: Values) -> dict[str, str]:
    """A config as lines; the seed is told elsewhere, the arguments without their prefix."""
    values = {name: value for name, value in flat(dict(config)).items() if name not in _LEFT_OUT}
    values.pop("arguments.training.seed", None)
    texts = {name.removeprefix("arguments."): _short(value) for name, value in values.items()}
    return texts | {"classes": str(len(config.get("class_names") or []))}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONG else text[:LONG] + " ..."


def _kind(runs: Sequence[FoundRun], section: Section, own: Mapping[str, str]) -> Kind:
    first = runs[0]
    seeds = sorted((run.arguments.get("training") or {}).get("seed", 0) for run in runs)
    label = label_of(first, section) + ("" if section.is_teacher(first) else f": {first.folder.parent.name}")
    return Kind(label, ", ".join(map(str, seeds)), command_of(first.arguments, first.folder.as_posix()), own)
