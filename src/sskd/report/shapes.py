"""What files must look like where a report reads them; what it does not read may be anything."""

from typing import Any, Required, TypedDict


class Training(TypedDict, total=False):
    """Of the arguments in config.json."""

    epochs: int | None
    seed: int
    optim: dict[str, Any] | None


class Arguments(TypedDict, total=False):
    """What a run was started with."""

    network: str | None
    data: str | None
    method: str | None
    fraction: float | None
    options: dict[str, Any] | None
    training: Training | None
    teacher: dict[str, Any] | None
    init: dict[str, Any] | None
    reading: dict[str, Any] | None
    student_taps: dict[str, Any] | None
    teacher_taps: dict[str, Any] | None


class Data(TypedDict, total=False):
    """What a run says of its data."""

    name: str | None
    test_images: int | None


class Teacher(TypedDict, total=False):
    """What a run says of its teacher."""

    architecture: str | None
    weights: str | None


class Stage(TypedDict, total=False):
    """A stage of the plan."""

    name: str
    epochs: float
    loss: dict[str, Any]


class Config(TypedDict, total=False):
    """config.json of a run."""

    arguments: Arguments | None
    data: Data | None
    teacher: Teacher | None
    optim: dict[str, Any] | None
    stages: list[Stage] | None
    class_names: list[str] | None
    environment: dict[str, Any] | None
    execution: dict[str, Any] | None


class TopOne(TypedDict, total=False):
    """Accuracies on a split."""

    top1: Required[float]


class Measured(TypedDict, total=False):
    """An epoch with its accuracies on the test split."""

    test: Required[TopOne]
    epoch: float
    stage: str


class Result(TypedDict, total=False):
    """result.json of a run."""

    last: Required[Measured]
    best: Measured | None
    weights: str | None


class Record(TypedDict, total=False):
    """A line of log.jsonl."""

    stage: Required[str]
    epoch: Required[float]
    seconds: float
    cpu_seconds: float
    peak_mib: float


class TableRow(TypedDict, total=False):
    """A row of a bench's table.json."""

    teacher: str | None
    student: str | None
    label: str
    method: str | None
    fraction: float | None
    n: int
    of: int
    last_mean: float | None
    last_deviation: float | None
    best_mean: float | None
    best_deviation: float | None
    vs_kd: float | None
    vs_best: float | None
    published: float | None
    kd_weight: float | None
    cpu_seconds: float | None
    peak_mib: float | None
    stage_seconds: dict[str, float] | None
    unit: str
    failed: str | None


class TableRun(TypedDict, total=False):
    """A run in a bench's table.json."""

    folder: str
    label: str | None
    status: str


class Recipe(TypedDict, total=False):
    """The recipe in a bench's table.json."""

    name: str
    about: str
    data: str
    seeds: list[int]


class Table(TypedDict, total=False):
    """table.json of a bench or a study."""

    recipe: Recipe | None
    rows: list[TableRow] | None
    runs: list[TableRun] | None


class Point(TypedDict, total=False):
    """A point of a study's series."""

    x: Required[float | str]
    n: int | None
    of: int | None
    mean: float | None
    deviation: float | None
    values: dict[str, float] | None


class Line(TypedDict, total=False):
    """A series of a study."""

    label: str
    method: str | None
    points: list[Point] | None


class Axis(TypedDict, total=False):
    """What a study varies."""

    name: str
    label: str
    values: list[float | str]


class Study(TypedDict, total=False):
    """study.json."""

    study: str
    question: str
    about: str
    command: str
    x: Axis | None
    series: list[Line] | None
    notes: list[str] | None
