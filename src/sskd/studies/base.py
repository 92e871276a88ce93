"""What a study is: one thing varied on a base recipe. And what all studies are told."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from sskd.bench.labels import Labels
from sskd.bench.recipe import Duo, Recipe, load_recipe, slug
from sskd.errors import UserError, unknown
from sskd.models.zoo import resolve
from sskd.ranges import need_some, refuse_empty


@dataclass(frozen=True)
class Base:
    """What a study is done on, and how it is run.

    Args:
        recipe: the bench recipe that the study varies (see `sskd list recipes`), or a YAML file: its pair, training and
            methods' options.
        data: a data set in place of the recipe's.
        teacher: a network in place of the recipe's teacher.
        student: a network in place of the recipe's student.
        seeds: in place of the recipe's.
        out: where everything is kept; runs/study-RECIPE where it is not given. All studies of a recipe, and its bench,
            may share a folder: a training that is there is not made again.
        jobs: trainings at a time; one for each GPU, or as many as the recipe's threads leave room for.
        engine: local runs processes of this machine; ray runs them on a Ray cluster (pip install sskd[ray]).
        gpus: with ray, GPUs for a training, such as 0.5; 1 where there are any.
        address: with ray, the cluster's, or local for a new one; the running one, else a new one, by default.
        only_table: run nothing, write the tables of what there is.

    Raises:
        UserError: empty text.
    """

    recipe: str = "cpu-small"
    data: str | None = None
    teacher: str | None = None
    student: str | None = None
    seeds: list[int] | None = None
    out: str | None = None
    jobs: int | None = None
    engine: Literal["local", "ray"] = "local"
    gpus: float | None = None
    address: str | None = None
    only_table: bool = False

    def __post_init__(self) -> None:
        refuse_empty(**vars(self))

    def load(self) -> Recipe:
        """The recipe, with what is said in its place.

        Raises:
            UserError: a recipe or network that is not there.
        """
        recipe = load_recipe(self.recipe, data=self.data, seeds=self.seeds)
        if self.teacher is None and self.student is None:
            return recipe
        first = recipe.pairs[0]
        duo = Duo(resolve(self.teacher or first.teacher), resolve(self.student or first.student))
        return replace(recipe, pairs=(duo,))

    @property
    def folder(self) -> Path:
        """Where cells, teachers and tables are kept."""
        return Path(self.out or f"runs/study-{slug(Path(self.recipe).stem)}")


X = float | str


@dataclass(frozen=True)
class Point:
    """Where a cell of the grid stands in the study: under its label in the recipe, on these labels."""

    x: X
    label: str
    labels: Labels


@dataclass(frozen=True)
class Series:
    """One line of the study's plot."""

    label: str
    method: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Study:
    """A grid with one thing varied. `about` says how; `x_name` and `x_label` name what stands along the axis."""

    name: str
    question: str
    about: str
    x_name: str
    x_label: str
    series: tuple[Series, ...]
    recipe: Recipe
    command: str
    heads: bool = False  # whether the accuracy of the teacher's head belongs beside the student's

    @property
    def values(self) -> list[X]:
        """All that stands along the axis, in order; where series of numbers have others than the first, by size."""
        found = list(dict.fromkeys(point.x for series in self.series for point in series.points))
        first = {point.x for point in self.series[0].points}
        numbers = [x for x in found if not isinstance(x, str)]
        return [*sorted(numbers)] if len(first) < len(found) == len(numbers) else found


def one_of(recipe: Recipe) -> Labels:
    """What students see in a study that varies another thing.

    Raises:
        UserError: the recipe varies it too.
    """
    if len(recipe.labels) > 1:
        raise UserError(
            f"A study varies one thing; the recipe {recipe.name} has several fractions or noises. Give it one of each."
        )
    return recipe.labels[0]


def chosen(recipe: Recipe, labels: Sequence[str] | None, usual: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Methods of a recipe by label; where none are named, those that are usual and there.

    Raises:
        UserError: a label that is not there; none is left.
    """
    if labels is not None:
        need_some("methods", labels)
    for label in labels or []:
        if label not in recipe.methods:
            raise unknown(f"label of the recipe {recipe.name}", label, recipe.methods)
    found = {label: recipe.methods[label] for label in labels or usual if label in recipe.methods}
    if not found:
        raise UserError(
            f"The recipe {recipe.name} has none of {', '.join(usual)}. Say --methods, of {', '.join(recipe.methods)}."
        )
    return found


def spelled(study: Callable[..., None], base: Base, given: Mapping[str, Any]) -> str:
    """The command that repeats a study: what differs from what is usual. `given` holds the function's arguments."""
    words = ["sskd study", study.__name__.replace("_", "-")]
    usual = {name: one.default for name, one in inspect.signature(study).parameters.items() if name != "base"}
    values = [(key, given[key]) for key in usual if given[key] != usual[key]]
    values += [(one.name, value) for one in fields(base) if (value := getattr(base, one.name)) != one.default]
    for key, value in values:
        if key == "only_table":
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        words.append(f"--{key} '{text}'" if any(sign in text for sign in " [{\"'") else f"--{key} {text}")
    return " ".join(words)
