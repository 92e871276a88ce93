"""Studies of what students see: few labels, wrong labels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from sskd.bench.labels import Labels
from sskd.bench.recipe import Recipe
from sskd.ranges import need_some
from sskd.studies.base import Base, Point, Series, Study, X, chosen, one_of, spelled
from sskd.studies.run import run

USUAL = ("ce", "kd", "sskd")  # labels, where none are named


def few_labels(
    shares: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0),
    per_class: tuple[int, ...] = (),
    same_steps: bool = False,
    teachers_see: Literal["all", "same"] = "all",
    methods: list[str] | None = None,
    **base: Any,
) -> None:
    """How much is lost where the student sees few images? The same ones for every method and seed, of each class alike.

    Args:
        shares: of the training images that the student sees; it sees nothing of the others.
        per_class: numbers of images of each class, beside the shares.
        same_steps: as many steps as with all images (with a quarter of them, four times the epochs), instead of as
            many epochs, as published. For short schedules, where few images would also mean hardly any training.
        teachers_see: the teacher and its head see all training images, or are trained anew on the student's (same).
        methods: labels of the recipe; ce, kd and sskd where they are not given.
        base: see `sskd.studies.base.Base`.

    Raises:
        UserError: values that are not understood; at the end, if trainings have failed.
    """
    need_some("shares and per_class together", [*shares, *(f"{count} per class" for count in per_class)])
    on = Base(**base)
    recipe = on.load()
    recipe = replace(
        recipe,
        name="few-labels",
        methods=chosen(recipe, methods, USUAL),
        fractions=(*shares, *(f"{count} per class" for count in per_class)),
        noises=(0.0,),
        same_steps=same_steps,
        teachers_see=teachers_see,
    )

    def place(labels: Labels) -> X:
        return labels.fraction if not per_class else labels.short or "100 %"

    kept = "steps" if same_steps else "epochs"
    study = Study(
        "few-labels",
        "How much does each method lose where the student sees few images?",
        f"The student sees a stratified share of the training images and nothing of the others, for as many {kept} as "
        "with all of them.",
        "images",
        "share of the training images" if not per_class else "training images",
        tuple(Series(label, recipe.method_of(label), _points(recipe, label, place)) for label in recipe.methods),
        recipe,
        spelled(few_labels, on, locals()),
    )
    run(study, on)


def noisy_labels(
    noises: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5),
    pair_flips: tuple[float, ...] = (),
    teachers_see: Literal["all", "same"] = "all",
    methods: list[str] | None = None,
    **base: Any,
) -> None:
    """How much is lost where labels are wrong? The same wrong labels for every method and seed; measured on right ones.

    Args:
        noises: shares of the labels replaced by one of all other classes (symmetric).
        pair_flips: shares of the labels replaced by the next class.
        teachers_see: the teacher is trained on right labels, or anew on the student's (same), as is its head.
        methods: labels of the recipe; ce, kd and sskd where they are not given.
        base: see `sskd.studies.base.Base`.

    Raises:
        UserError: values that are not understood; at the end, if trainings have failed.
    """
    need_some("noises and pair_flips together", [*noises, *(f"pair-flip {share:g}" for share in pair_flips)])
    on = Base(**base)
    recipe = on.load()
    one_of(replace(recipe, noises=(0.0,)))
    flips = [f"pair-flip {share:g}" for share in pair_flips if share or 0 not in noises]
    recipe = replace(
        recipe,
        name="noisy-labels",
        methods=chosen(recipe, methods, USUAL),
        noises=(*noises, *flips),
        teachers_see=teachers_see,
    )
    kinds = [("", "symmetric", noises), (", pair-flip", "pair-flip", pair_flips)]
    series = [
        Series(f"{label}{said}", recipe.method_of(label), points)
        for said, kind, shares in kinds
        for label in recipe.methods
        if shares and (points := _points(recipe, label, lambda labels: labels.noise, _of_kind(kind)))
    ]
    study = Study(
        "noisy-labels",
        "How much does each method lose where training labels are wrong?",
        "A stated share of the training labels is wrong; validation and test labels are right. Symmetric: one of all "
        "other classes, so exactly that share is wrong. Pair-flip: the next class.",
        "noise",
        "share of wrong labels",
        tuple(series),
        recipe,
        spelled(noisy_labels, on, locals()),
    )
    run(study, on)


def _of_kind(kind: str) -> Callable[[Labels], bool]:
    """No noise belongs to every kind."""
    return lambda labels: not labels.noise or labels.noise_kind == kind


def _points(
    recipe: Recipe, label: str, place: Callable[[Labels], X], belongs: Callable[[Labels], bool] = lambda _: True
) -> tuple[Point, ...]:
    return tuple(Point(place(labels), label, labels) for labels in recipe.labels if belongs(labels))
