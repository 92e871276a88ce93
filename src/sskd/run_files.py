"""What the JSON files of a run directory hold, checked where they are read. Needs no torch."""

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from sskd.errors import UserError
from sskd.files import flat, read_bytes, read_json
from sskd.validation import convert

Config = dict[str, Any]
Record = dict[str, Any]
"""One line of a run's log."""

START_ANEW = "Restore it, or start anew with another --out."
FINISH_AGAIN = "Delete it, and the command that made the run finishes it again."


class TrainingConfig(TypedDict, total=False):
    """`training` among the arguments; the keys that are read."""

    epochs: int | None
    seed: int
    optim: dict[str, Any] | None


class ArgumentsConfig(TypedDict, total=False):
    """`arguments` in config.json: what a run was asked for; see `jobs.job.Job`."""

    network: str
    data: str
    method: str
    fraction: float
    options: dict[str, Any]
    training: TrainingConfig
    reading: dict[str, Any]
    teacher: dict[str, Any] | None
    init: dict[str, Any] | None


class DataConfig(TypedDict, total=False):
    """`data` in config.json; the keys that are read."""

    name: str
    train_images: int
    teacher_images: int
    validation_images: int
    test_images: int
    train_fingerprint: str
    decode: str | None


class TeacherConfig(TypedDict, total=False):
    """`teacher` in config.json: empty where there was none."""

    architecture: str
    weights: str
    mean: list[float]
    std: list[float]
    size: int | None
    order: list[int] | None


class StageConfig(TypedDict):
    """One of `stages` in config.json."""

    name: str
    epochs: int
    loss: dict[str, float]


class RunConfig(TypedDict, total=False):
    """config.json: how a run was begun."""

    arguments: ArgumentsConfig
    data: DataConfig
    teacher: TeacherConfig
    labels: dict[str, Any]
    optim: dict[str, Any]
    stages: list[StageConfig]
    class_names: list[str]
    execution: dict[str, Any]
    asked: dict[str, Any]
    environment: dict[str, Any]
    sha256: str


class Scores(TypedDict):
    """Accuracies on a split, as shares."""

    top1: float
    top5: NotRequired[float]


class EpochResult(TypedDict):
    """An epoch at which the student was measured."""

    epoch: int
    test: Scores
    validation: NotRequired[Scores]
    stage: NotRequired[str]


class RunResult(TypedDict):
    """result.json: what a finished run came to."""

    last: EpochResult
    best: EpochResult | None
    seconds: NotRequired[float]
    parameters: NotRequired[int]
    network: NotRequired[str]
    weights: NotRequired[str]


class LogLine(TypedDict):
    """A line of log.jsonl: an epoch, or a stage that was taken from the cache (`reused`: its file)."""

    stage: str
    epoch: NotRequired[int]
    seconds: NotRequired[float]
    cpu_seconds: NotRequired[float]
    evaluation_seconds: NotRequired[float]
    peak_mib: NotRequired[float]
    reused: NotRequired[str]
    loss: NotRequired[dict[str, float]]
    train: NotRequired[dict[str, Any]]
    fresh: NotRequired[dict[str, Any]]


def read_config(path: Path) -> Config:
    """A run's config.json.

    Raises:
        UserError: it cannot be read, or holds something other than a run's config.
    """
    config = read_json(path, START_ANEW)
    convert(config, RunConfig, str(path), START_ANEW)
    return config


def read_result(path: Path) -> Record:
    """A run's result.json.

    Raises:
        UserError: it cannot be read, or holds something other than a run's result.
    """
    result = read_json(path, FINISH_AGAIN)
    convert(result, RunResult, str(path), FINISH_AGAIN)
    return result


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a log with their ends; a last one that was cut off in writing is left out."""
    if not path.exists():
        return []
    return [line for line in read_bytes(path, START_ANEW).splitlines(keepends=True) if line.endswith(b"\n")]


def parse_line(line: bytes, where: str) -> Record:
    """A line of a log.

    Raises:
        UserError: it is no JSON, or no line that a run writes.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is damaged ({error}). {START_ANEW}") from error
    convert(value, LogLine, where, START_ANEW)
    record: Record = value
    return record


def log_damage(path: Path, read: int) -> str:
    """What is wrong with the line of a log after the first `read` lines; empty where there is none."""
    lines = whole_lines(path)
    try:
        for number, line in enumerate(lines[read:], read + 1):
            parse_line(line, f"{path}, line {number}")
    except UserError as error:
        return str(error)
    return ""


PLACES = ("arguments.data", "arguments.teacher.place", "arguments.init.place")
FIXED = ("precision", "channels_last", "threads", "folded")  # of the execution; what memory asks for may change


def deciding(config: Config) -> Config:
    """What of a run's config decides its result, with dotted names: not where things lie, nor the machine."""
    keys = ("arguments", "data", "teacher", "optim", "stages", "class_names")
    values = flat({key: config[key] for key in keys if key in config})
    execution = config.get("execution") or {}
    values |= {f"execution.{name}": execution[name] for name in FIXED if name in execution}
    return {name: value for name, value in values.items() if name not in PLACES}


def differences(there: Config, here: Config) -> str:
    """The names whose values differ, with both values; empty where none does."""
    names = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    return "; ".join(f"{name}: {there.get(name)!r} there, {here.get(name)!r} now" for name in names)
