"""What tables of benches and studies must look like where a report reads them; the rest may be anything."""

from typing import Required, TypedDict


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
