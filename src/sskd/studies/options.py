"""Studies of SSKD's own parts: its loss terms, selective transfer, weights, pretexts, transformations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal

from sskd.bench.recipe import Recipe, slug
from sskd.errors import UserError
from sskd.methods.find import find_method
from sskd.methods.options import options_of
from sskd.methods.sskd_loss import PRESETS, need_ratios
from sskd.ranges import need_between, need_once, need_some
from sskd.studies.base import Base, Point, Series, Study, X, one_of, spelled
from sskd.studies.run import run
from sskd.views.find import find_pretext
from sskd.views.transformations import RGB, transformations_of

TERMS = ("ce", "kd", "tf", "ss")
Term = Literal["ce", "kd", "tf", "ss"]
Changes = Mapping[str, Any]


def loss_terms(
    combinations: Literal["without", "all", "none"] = "without",
    swept: tuple[Term, ...] = ("tf", "ss"),
    factors: tuple[float, ...] = (0.3, 3.0),
    **base: Any,
) -> None:
    """What does each term of SSKD's loss bring, and how much do the weights matter?

    Args:
        combinations: all terms, each one left out, and cross-entropy with KD alone (without); every combination of ce,
            kd, tf and ss (all); or only the weights (none).
        swept: terms whose weight is varied.
        factors: by which it is multiplied.
        base: see `sskd.studies.base.Base`.

    Raises:
        UserError: values that are not understood; at the end, if trainings have failed.
    """
    if combinations == "none":  # then nothing else varies
        need_some("swept", swept)
        need_some("factors", factors)
    need_once("swept", swept)
    need_once("factors", factors)
    for factor in factors:
        need_between("factors: each", factor, 0)
    on = Base(**base)
    recipe, label = _sskd(on)
    options = recipe.methods[label]
    weights = PRESETS[str(options.get("preset", "released"))] | {t: options[t] for t in TERMS if t in options}
    by_name: dict[str, list[tuple[str, ...]]]
    by_name = {"without": _left_out(), "all": _combinations(), "none": [TERMS]}
    kept = by_name[combinations]
    changes: dict[X, Changes] = {_said(terms): {t: 0.0 for t in TERMS if t not in terms} for terms in kept}
    changes |= {f"{t} x {factor:g}": {t: weights[t] * factor} for t in swept for factor in factors if factor != 1}
    published = ", ".join(f"{t} {weights[t]:g}" for t in TERMS)
    _run(
        on,
        recipe,
        label,
        "loss-terms",
        "What does each term of the loss bring?",
        f"SSKD with terms left out (weight 0), and with the weight of one multiplied. All: {published}. ce: labels; "
        "kd: the teacher's classes on plain images; tf: on transformed ones; ss: its self-supervised answers.",
        ("terms", "terms of the loss"),
        {"SSKD": changes},
        spelled(loss_terms, on, locals()),
    )


def transfer_ratio(
    ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
    terms: tuple[Literal["ss", "tf"], ...] = ("ss", "tf"),
    **base: Any,
) -> None:
    """How many of the teacher's wrong answers should be passed on? The least wrong first (selective transfer).

    Args:
        ratios: shares of the rows on which the teacher is wrong that are passed on.
        terms: ss, the self-supervised answers; tf, the classes of transformed images. One is varied at a time.
        base: see `sskd.studies.base.Base`.

    Raises:
        UserError: values that are not understood; at the end, if trainings have failed.
    """
    need_some("ratios", ratios)
    need_some("terms", terms)
    for term, ratio in product(terms, ratios):  # before a teacher is trained
        need_ratios(**{f"ratio_{term}": ratio})
    on = Base(**base)
    recipe, label = _sskd(on)
    _run(
        on,
        recipe,
        label,
        "transfer-ratio",
        "How many of the teacher's wrong answers should be passed on?",
        "All rows on which the teacher is right are passed on, and of those on which it is wrong this share, the least "
        "wrong first. One term is varied, the other stays as usual.",
        ("ratio", "share of wrong answers passed on"),
        {term: {ratio: {f"ratio_{term}": ratio} for ratio in ratios} for term in terms},
        spelled(transfer_ratio, on, locals()),
    )


def presets(
    names: tuple[Literal["released", "arxiv", "supplement"], ...] = ("released", "arxiv", "supplement"), **base: Any
) -> None:
    """Which of the published sources' weights are best? They disagree on those of tf and ss.

    Args:
        names: released, arxiv, supplement.
        base: see `sskd.studies.base.Base`.

    Raises:
        UserError: values that are not understood; at the end, if trainings have failed.
    """
    need_some("names", names)
    on = Base(**base)
    recipe, label = _sskd(on)
    said = "; ".join(f"{name}: tf {PRESETS[name]['tf']:g}, ss {PRESETS[name]['ss']:g}" for name in names)
    _run(
        on,
        recipe,
        label,
        "presets",
        "Which of the published sources' weights are best?",
        f"The released code, the arXiv version and the supplement give different weights. {said}.",
        ("preset", "source of the weights"),
        {"SSKD": {name: {"preset": name} for name in names}},
        spelled(presets, on, locals()),
    )


def pretexts(names: tuple[str, ...] = ("contrastive", "rotation", "jigsaw", "exemplar"), **base: Any) -> None:
    """Which self-supervised question should the teacher's and the student's heads be asked?

    Args:
        names: contrastive, rotation, jigsaw, exemplar, or MODULE:CLASS of your own.
        base: see `sskd.studies.base.Base`.

    Raises:
        UserError: values that are not understood; at the end, if trainings have failed.
    """
    need_some("names", names)
    for name in names:
        find_pretext(name)
    on = Base(**base)
    recipe, label = _sskd(on)
    _run(
        on,
        recipe,
        label,
        "pretexts",
        "Which self-supervised question should be asked?",
        "contrastive: which image of the batch a view comes from; rotation: by how much it is turned; jigsaw: in which "
        "order its quarters stand; exemplar: which training image it is. Wrong answers are filtered of contrastive's "
        "alone.",
        ("pretext", "self-supervised question"),
        {"SSKD": {name: {"pretext": name} for name in names}},
        spelled(pretexts, on, locals()),
        heads=True,
    )


def transformations(
    names: tuple[str, ...] = ("rotation", "colour_dropping", "crop_resize", "colour_distortion", "all"), **base: Any
) -> None:
    """Which transformations should the views be made by, of which the heads are asked?

    Args:
        names: of transformations, several at once joined by +, or all.
        base: see `sskd.studies.base.Base`.

    Raises:
        UserError: values that are not understood; at the end, if trainings have failed.
    """
    need_some("names", names)
    for name in names:
        transformations_of(_joined(name), RGB)  # what images without colours cannot have is seen when they are read
    on = Base(**base)
    recipe, label = _sskd(on)
    _run(
        on,
        recipe,
        label,
        "transformations",
        "Which transformations should make the views?",
        "Three transformed views of each image. Where there are several, each view draws one of them.",
        ("transformations", "transformations of the views"),
        {"SSKD": {name: {"transformations": _joined(name)} for name in names}},
        spelled(transformations, on, locals()),
        heads=True,
    )


def _run(
    on: Base,
    recipe: Recipe,
    label: str,
    name: str,
    question: str,
    about: str,
    axis: tuple[str, str],
    series: Mapping[str, Mapping[X, Changes]],
    command: str,
    heads: bool = False,
) -> None:
    """Each series: what stands along the axis, and the options that it changes."""
    labels, methods, found = one_of(recipe), dict[str, Mapping[str, Any]](), list[Series]()
    for title, changes in series.items():
        points = list[Point]()
        for x, changed in changes.items():
            own, options = variant(label, recipe.methods[label], changed)
            methods[own] = options
            points.append(Point(x, own, labels))
        found.append(Series(title, "sskd", tuple(points)))
    recipe = replace(recipe, name=name, methods=methods)
    run(Study(name, question, about, *axis, tuple(found), recipe, command, heads), on)


def variant(label: str, options: Mapping[str, Any], changed: Changes) -> tuple[str, dict[str, Any]]:
    """Label and options of a method with some options changed. A change that makes no difference leaves no trace in
    either, so that a cell has one name in all studies."""
    name = str(options.get("method", label))
    usual = {**options_of(find_method(name)), **options}
    if name == "sskd":  # its weights are the preset's where they are not given
        preset = PRESETS[str(usual["preset"])]
        usual |= {term: preset[term] for term in TERMS if usual[term] is None}
    differing = {key: value for key, value in changed.items() if _plain(usual.get(key)) != _plain(value)}
    marks = (f"-{key}{_mark(value)}" for key, value in differing.items())
    return label + "".join(marks), {**options, "method": name, **differing} if differing else dict(options)


def _plain(value: Any) -> Any:
    """A list of one stands for the one."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values[0] if len(values) == 1 else values


def _mark(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{value:g}"
    return f"-{slug('-'.join(value) if isinstance(value, list | tuple) else str(value))}"


def _sskd(on: Base) -> tuple[Recipe, str]:
    recipe = on.load()
    label = next((label for label in recipe.methods if recipe.method_of(label) == "sskd"), None)
    if label is None:
        raise UserError(
            f"The recipe {recipe.name} has no method sskd, which this study varies. Add it, with its options."
        )
    return recipe, label


def _left_out() -> list[tuple[str, ...]]:
    """All; each left out; what there was before SSKD."""
    return [TERMS, *(tuple(t for t in TERMS if t != left) for left in TERMS), ("ce", "kd")]


def _combinations() -> list[tuple[str, ...]]:
    chosen = (tuple(t for i, t in enumerate(TERMS) if bits >> i & 1) for bits in range(1, 2 ** len(TERMS)))
    return sorted(chosen, key=len, reverse=True)


def _said(terms: Sequence[str]) -> str:
    left = [t for t in TERMS if t not in terms]
    return "all" if not left else f"without {left[0]}" if len(left) == 1 else f"{' + '.join(terms)} alone"


def _joined(name: str) -> str | list[str]:
    return name.split("+") if "+" in name else name
