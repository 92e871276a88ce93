"""A bench recipe: pairs x methods x seeds x fractions x noises, in YAML."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sskd.bench.labels import Labels, Seen
from sskd.errors import UserError, unknown
from sskd.methods.find import find_method
from sskd.methods.options import check_options
from sskd.models.zoo import resolve
from sskd.ranges import need_between
from sskd.reading import Reading
from sskd.settings import Training
from sskd.validation import convert


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

    Raises:
        UserError: nothing to train; a fraction or noise out of range.
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

    def __post_init__(self) -> None:
        for name in ("pairs", "methods", "seeds", "fractions", "noises"):
            if not getattr(self, name):
                raise UserError(f"{name} must be one or more; the recipe {self.name} has none.")
        if any(labels.teacher_saw == "same" for labels in self.labels) and self.teachers:
            raise UserError(
                f"teachers_see same trains a teacher for each share of labels; the recipe {self.name} gives weights "
                f"for {', '.join(self.teachers)}. Leave one of the two out."
            )

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
        try:
            text = Path(name).read_text(errors="replace")
        except OSError as error:
            raise UserError(f"The bench recipe {name} cannot be read: {error.strerror}.") from error
    else:
        raise unknown("bench recipe (nor is it a file)", name, packaged())
    try:
        values = yaml.safe_load(text)
    except RecursionError as error:
        raise UserError(f"{name} is nested too deeply to be a bench recipe.") from error
    except (yaml.YAMLError, ValueError) as error:  # the latter of dates that are none
        raise UserError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{name} is no bench recipe: expected keys such as data, pairs, methods; got {values!r:.80}.")
    values |= {key: value for key, value in changed.items() if value is not None}
    recipe = _recipe(name, values)
    _check(recipe)
    return recipe


def _recipe(place: str, values: Mapping[str, Any]) -> Recipe:
    name = slug(Path(place).stem)
    where = f"the bench recipe {name}"
    for key, advice in _NEEDED.items():
        if not values.get(key):
            raise UserError(f"The bench recipe {name} has no {key}. {advice}")
    if "name" in values:
        raise unknown(f"key of {where}", "name", [one.name for one in fields(Recipe) if one.name != "name"])
    given = {**values, "name": name}
    for key in ("training", "teacher_training", "teachers", "reading"):
        given[key] = {} if given.get(key) is None else given[key]
    if isinstance(given["methods"], dict):
        given["methods"] = {label: {} if one is None else one for label, one in given["methods"].items()}
    recipe = convert(given, Recipe, where)
    pairs = tuple(replace(one, teacher=resolve(one.teacher), student=resolve(one.student)) for one in recipe.pairs)
    teachers = {resolve(network): weights for network, weights in recipe.teachers.items()}
    return replace(recipe, pairs=pairs, teachers=teachers)


_NEEDED = {
    "data": "Name a data set (`sskd list data`): data: cifar100, or --data.",
    "pairs": "List them: pairs: [{teacher: cifar_resnet20, student: cifar_resnet8}].",
    "methods": "Name methods (`sskd list methods`) with their options: methods: {ce: {}, kd: {}}.",
}


def _check(recipe: Recipe) -> None:
    """Everything that can be seen without data: names, options, arguments.

    Raises:
        UserError: the first that is wrong.
    """
    where = f"the bench recipe {recipe.name}"
    for label in recipe.methods:
        method = find_method(recipe.method_of(label))
        for duo in recipe.pairs:
            check_options(method, recipe.method_of(label), recipe.options_of(label, duo))
    for duo in recipe.pairs:
        for label in (*duo.options, *duo.skip):
            if label not in recipe.methods:
                raise unknown(f"method label of the pair {duo.name}", label, recipe.methods)
        if recipe.methods.keys() <= {*duo.skip}:
            raise UserError(f"The pair {duo.name} of {where} skips all methods. Leave the pair out, or skip fewer.")
    for network, weights in recipe.teachers.items():
        if not weights.strip():
            raise UserError(f"{where} gives no weights for {network}. Name a run, a folder or a file, or leave it out.")
        if network not in (used := {duo.teacher: None for duo in recipe.pairs}):
            raise UserError(f"{where} gives weights for {network}, no pair's teacher: those are {', '.join(used)}.")
    _training(recipe.training, f"{where}, training")
    _training({**recipe.training, **recipe.teacher_training}, f"{where}, teacher_training")
    convert(recipe.reading, Reading, f"{where}, reading")


def _training(values: Mapping[str, Any], where: str) -> None:
    """Refuse what is no training, or what a recipe says elsewhere."""
    elsewhere = "fractions: [4 per class], noises: [0.3] or noises: [pair-flip 0.3]"
    for name in ("per_class", "noise", "noise_kind"):
        if name in values:
            raise UserError(f"{name} does not stand in {where}: say {elsewhere}, beside it.")
    if "seed" in values:
        raise UserError(f"seed does not stand in {where}: say seeds: [0, 1], or teacher_seed: 0, beside it.")
    training = convert(values, Training, where)
    need_between(f"{where}: epochs", training.epochs, 1)
