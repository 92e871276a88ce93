"""A bench recipe: pairs x methods x seeds x fractions x noises, in YAML."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml

from sskd.bench.labels import Labels, Seen
from sskd.errors import UserError, unknown
from sskd.methods.find import find_method
from sskd.methods.options import check_options
from sskd.methods.plan import Optim
from sskd.models.zoo import resolve
from sskd.reading import Reading
from sskd.settings import Training


@dataclass(frozen=True)
class Duo:
    """A teacher and a student. `options` are added to those of methods, by label; `skip` leaves labels out."""

    teacher: str
    student: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    student_taps: Mapping[str, str] = field(default_factory=dict)
    teacher_taps: Mapping[str, str] = field(default_factory=dict)
    skip: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For folders and tables."""
        return f"{slug(self.teacher)}--{slug(self.student)}"


@dataclass(frozen=True)
class Recipe:
    """A grid. See `docs/bench.md` for what each key means.

    Args:
        name: of the recipe.
        about: what it measures, for the table.
        data: a data set, as in `sskd distill`.
        pairs: teachers and students.
        methods: options by label. The label is the method's name, or `method` among the options is.
        seeds: of the students.
        teacher_seed: of the teachers, one for all of a teacher's students.
        fractions: of the training images that students see: shares, or numbers such as "4 per class".
        noises: shares of wrong labels that students see: symmetric, or such as "pair-flip 0.3".
        same_steps: with a fraction below 1, as many steps as with all images instead of as many epochs.
        teachers_see: teachers, and their heads, see all training images with right labels (all), or are trained anew on
            what the student sees (same).
        training: arguments of every training.
        teacher_training: what teachers have otherwise.
        teachers: weights to use instead of training a teacher, by its network.
        reading: how the data set is read.
    """

    name: str
    data: str
    pairs: tuple[Duo, ...]
    methods: Mapping[str, Mapping[str, Any]]
    about: str = ""
    seeds: tuple[int, ...] = (0,)
    teacher_seed: int = 0
    fractions: tuple[float | str, ...] = (1.0,)
    noises: tuple[float | str, ...] = (0.0,)
    same_steps: bool = False
    teachers_see: Seen = "all"
    training: Mapping[str, Any] = field(default_factory=dict)
    teacher_training: Mapping[str, Any] = field(default_factory=dict)
    teachers: Mapping[str, str] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)

    def method_of(self, label: str) -> str:
        """The method that a label stands for."""
        return str(self.methods[label].get("method", label))

    @property
    def labels(self) -> list[Labels]:
        """All that students see, in order."""
        see = self.same_steps, self.teachers_see
        return [Labels.of(share, noise, *see) for share in self.fractions for noise in self.noises]

    def options_of(self, label: str, duo: Duo) -> dict[str, Any]:
        """The method's options for a pair."""
        given = {**self.methods[label], **duo.options.get(label, {})}
        return {name: value for name, value in given.items() if name != "method"}


def slug(text: str) -> str:
    """A name as part of a folder's."""
    return re.sub(r"[^\w.]+", "-", text).strip("-")


def packaged() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("sskd.bench") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name: str, **changed: Any) -> Recipe:
    """A recipe of the package by its name, or of a file; `changed` stands in place of what it says, unless None.

    Raises:
        UserError: no such recipe; keys, methods, options or values that are not understood.
    """
    if name in packaged():
        text = (resources.files("sskd.bench") / "recipes" / f"{name}.yaml").read_text()
    elif Path(name).is_file():
        text = Path(name).read_text(errors="replace")
    else:
        raise unknown("bench recipe (nor is it a file)", name, packaged())
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{name} is no bench recipe: expected keys such as data, pairs, methods; got {values!r:.80}.")
    values |= {key: value for key, value in changed.items() if value is not None}
    recipe = _recipe(slug(Path(name).stem), values)
    _check(recipe)
    return recipe


def _recipe(name: str, values: Mapping[str, Any]) -> Recipe:
    known = {one.name: one for one in dataclasses.fields(Recipe) if one.name != "name"}
    for key in values:
        if key not in known:
            raise unknown("key of a bench recipe", str(key), known)
    for key in ("data", "pairs", "methods"):
        if not values.get(key):
            raise UserError(f"The bench recipe {name} has no {key}. {_NEEDED[key]}")
    given = dict(values)
    for key in ("methods", "training", "teacher_training", "teachers", "reading"):
        if not isinstance(given.get(key) or {}, dict):
            raise UserError(f"{key} of the bench recipe {name} must be names with values; got {given[key]!r:.80}.")
        given[key] = given.get(key) or {}
    for key in ("pairs", "seeds", "fractions", "noises"):
        if key in given and not isinstance(given[key], list | tuple):
            raise UserError(f"{key} of the bench recipe {name} must be a list; got {given[key]!r:.80}.")
    given["methods"] = {str(label): dict(options or {}) for label, options in given["methods"].items()}
    given["pairs"] = tuple(_duo(one, name) for one in given["pairs"])
    given |= {key: tuple(given[key]) for key in ("seeds", "fractions", "noises") if key in given}
    return Recipe(name=name, **given)


_NEEDED = {
    "data": "Name a data set (`sskd list data`): data: cifar100, or --data.",
    "pairs": "List them: pairs: [{teacher: cifar_resnet20, student: cifar_resnet8}].",
    "methods": "Name methods (`sskd list methods`) with their options: methods: {ce: {}, kd: {}}.",
}


def _duo(values: Any, name: str) -> Duo:
    known = [one.name for one in dataclasses.fields(Duo)]
    if not isinstance(values, dict) or not {"teacher", "student"} <= values.keys():
        raise UserError(f"A pair of the bench recipe {name} needs a teacher and a student; got {values!r:.80}.")
    for key in values:
        if key not in known:
            raise unknown("key of a bench recipe's pair", str(key), known)
    return Duo(**{**values, "teacher": resolve(values["teacher"]), "student": resolve(values["student"])})


def _check(recipe: Recipe) -> None:
    """Everything that can be seen without data: names, options, arguments.

    Raises:
        UserError: the first that is wrong.
    """
    for label in recipe.methods:
        method = find_method(recipe.method_of(label))
        for duo in recipe.pairs:
            check_options(method, recipe.method_of(label), recipe.options_of(label, duo))
    for duo in recipe.pairs:
        for label in (*duo.options, *duo.skip):
            if label not in recipe.methods:
                raise unknown(f"method label of the pair {duo.name}", label, recipe.methods)
    for key in ("training", "teacher_training"):
        _training({**recipe.training, **(recipe.teacher_training if key == "teacher_training" else {})}, key)
    for name in recipe.reading:
        if name not in (fields := [one.name for one in dataclasses.fields(Reading)]):
            raise unknown("reading argument of a bench recipe", name, fields)
    for seed in recipe.seeds:
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise UserError(f"seeds of the bench recipe {recipe.name} are numbers; got {seed!r}.")
    if recipe.teachers_see not in get_args(Seen) or not isinstance(recipe.same_steps, bool):
        see = f"{recipe.teachers_see!r} and {recipe.same_steps!r}"
        raise UserError(f"teachers_see is all or same, same_steps true or false; the recipe {recipe.name} has {see}.")
    if any(labels.teacher_saw == "same" for labels in recipe.labels) and recipe.teachers:
        raise UserError(
            f"teachers_see same trains a teacher for each share of labels; the recipe {recipe.name} gives weights for "
            f"{', '.join(recipe.teachers)}. Leave one of the two out."
        )


def _training(values: Mapping[str, Any], key: str) -> None:
    known = {one.name for one in dataclasses.fields(Training)} - {"seed"}
    for name in ("per_class", "noise", "noise_kind"):
        if name in values:
            raise UserError(
                f"{name} of a bench recipe does not stand in {key}: say fractions: [4 per class], noises: [0.3] or "
                "noises: [pair-flip 0.3], beside it."
            )
    for name in values:
        if name not in known:
            raise unknown(f"{key} argument of a bench recipe", name, known)
    optim = values.get("optim") or {}
    for name in optim:
        if name not in (names := [one.name for one in dataclasses.fields(Optim)]):
            raise unknown(f"{key}.optim argument of a bench recipe", name, names)
    try:
        Training(**{**values, "optim": Optim(**optim)})
    except TypeError as error:
        raise UserError(f"{key} of the bench recipe: {error}.") from error
