"""What each method makes of a pair: weights, stages, and pairs that do not fit."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from sskd.errors import UserError
from sskd.jobs import assemble
from sskd.methods import METHODS
from sskd.methods.crd import Banked, Queue
from sskd.methods.options import complete, options_of
from sskd.methods.plan import Optim, Pair, Plan, Side
from sskd.models.network import create_network
from sskd.models.normalisation import Normalisation
from tests.trainers import CLASSES, info

MAPS: dict[str, tuple[int, ...]] = {
    "stem": (16, 32, 32),
    "stage1": (16, 32, 32),
    "stage2": (32, 16, 16),
    "stage3": (64, 8, 8),
}
SHAPES: dict[str, tuple[int, ...]] = {
    **MAPS,
    **{f"{name}.pre": shape for name, shape in MAPS.items() if name != "stem"},
    "pooled": (64,),
    "logits": (CLASSES,),
}
TOKENS = {**SHAPES, **{f"stage{i}{end}": (65, 192) for i in (1, 2, 3) for end in ("", ".pre")}}
WIDE = {**SHAPES, "stem": (32, 32, 32), "stage1": (32, 32, 32), "stage1.pre": (32, 32, 32)}
FOUR = {**SHAPES, "stage4": (64, 4, 4), "stage4.pre": (64, 4, 4)}


def tail(side: Side, tap: str, outputs: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(outputs))


def without(*names: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in SHAPES.items() if not name.endswith(names)}


def pair_of(student: Any = SHAPES, teacher: Any = SHAPES, **changed: Any) -> Pair:
    return Pair(student, teacher, info(), **{"tail": tail, **changed})


def plan_of(method: str, pair: Pair | None = None, epochs: int = 240, **options: Any) -> Plan:
    return METHODS[method](pair or pair_of(), epochs=epochs, optim=Optim(lr=0.1, milestones=(0.5,)), **options)


def weights(plan: Plan) -> dict[str, float]:
    return {name: weight for stage in plan.stages for name, (weight, _) in stage.loss.items()}


PUBLISHED: dict[str, dict[str, float]] = {
    "fitnet": {"ce": 1, "hint": 100},
    "at": {"ce": 1, "at": 1000},
    "sp": {"ce": 1, "sp": 3000},
    "cc": {"ce": 1, "cc": 0.02},
    "vid": {"ce": 1, "vid": 1},
    "rkd": {"ce": 1, "distance": 25, "angle": 50},
    "pkt": {"ce": 1, "pkt": 30000},
    "ab": {"ab": 1, "ce": 1},
    "ft": {"reconstruction": 1, "ce": 1, "ft": 200},
    "fsp": {"fsp": 1, "ce": 1},
    "nst": {"ce": 1, "nst": 50},
    "crd": {"ce": 1, "crd": 0.8},
    "kdsvd": {"ce": 1, "kdsvd": 1},
    "irg": {"ce": 1, "vertex": 0.1, "edge": 5, "transformation": 5},
    "one": {"ce": 1, "ensemble": 1},
    "dkd": {"ce": 1, "tckd": 1, "nckd": 8},
    "dist": {"ce": 1, "inter": 2, "intra": 2},
    "reviewkd": {"ce": 1, "reviewkd": 1},
    "wttm": {"ce": 1, "wttm": 45},
    "rld": {"ce": 1, "scd": 1, "mcd": 8},
    "hsakd": {"joint": 1, "ce": 1, "mimicry": 1, "views": 1},
}


def test_every_method_is_in_the_table() -> None:
    assert METHODS.keys() - PUBLISHED.keys() == {"ce", "kd", "sskd"}


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_weights(method: str) -> None:
    assert weights(plan_of(method)) == PUBLISHED[method]
    if "kd_weight" in options_of(METHODS[method]):
        with_kd = plan_of(method, kd_weight=0.7, ce_weight=0.3)
        assert weights(with_kd) == {**PUBLISHED[method], "ce": 0.3, "kd": 0.7}
        assert "kd" in with_kd.stages[-1].loss
    else:
        assert method == "one"


@pytest.mark.parametrize(
    ("method", "first", "epochs", "lr", "shared", "trains"),
    [
        ("ab", "init", 30, 0.1, False, ("student",)),
        ("fsp", "init", 30, 0.1, False, ("student",)),
        ("ft", "paraphraser", 30, 0.01, True, ("paraphraser",)),
        ("hsakd", "branches", 100, 0.05, True, ("teacher_branches",)),
    ],
)
def test_stages_before(method: str, first: str, epochs: int, lr: float, shared: bool, trains: tuple[str, ...]) -> None:
    before, student = plan_of(method).stages
    assert (before.name, before.epochs, before.optim.lr, before.shared) == (first, epochs, lr, shared)
    assert before.trains == trains
    assert before.optim.milestones == ((0.3, 0.6, 0.9) if method == "hsakd" else ())
    optim = Optim(lr=0.1, milestones=(0.5,), nesterov=method == "hsakd")
    assert (student.name, student.epochs, student.optim) == ("student", 240, optim)


def test_options_of_stages() -> None:
    assert [stage.name for stage in plan_of("fitnet").stages] == ["student"]
    hint, student = plan_of("fitnet", init_epochs=2, init_lr=0.5).stages
    assert (hint.epochs, hint.optim.lr, hint.trains, [*hint.loss]) == (2, 0.5, ("student", "hint"), ["hint"])
    assert [*student.loss] == ["ce"]
    wide = plan_of("ab", pair_of(SHAPES, WIDE)).stages[0]
    assert wide.trains == ("student", "ab"), "connectors are trained where channels differ"


def test_ab_says_which_stages_have_no_activation() -> None:
    linear = {"student": ("stage1.pre", "stage3.pre"), "teacher": ("stage2.pre",)}
    assert plan_of("ab").notes == ()
    assert plan_of("ab", pair_of(linear=linear), stages=("stage1", "stage3:stage2")).notes == (
        "ab: stage1, stage3 of the student and stage2 of the teacher end without an activation; their values are "
        "compared as they are.",
    )
    shape, plain = (3, 32, 32), Normalisation((0.5,) * 3, (0.2,) * 3, "test")
    mobile, resnet = (
        create_network(name, tuple("abcd"), shape, plain) for name in ("cifar_mobilenet_v2", "cifar_resnet8")
    )
    found = assemble.pair_of(mobile, resnet, replace(info(), image_shape=shape)).linear
    assert found == {"student": tuple(f"stage{i}.pre" for i in range(1, 5)), "teacher": ()}


def test_crd_sizes_its_banks() -> None:
    term = plan_of("crd").stages[0].loss["crd"][1]
    assert isinstance(term, Banked) and term.loss.memory_student.shape == (12, 128) and term.needs_index
    assert plan_of("crd").notes == (
        "crd: two banks of 12 x 128 numbers take 0.0 MiB.",
        "crd: 16,384 negatives were asked for, and for the largest class there are 9 images of others; "
        "all of them are used.",
    )
    assert len(plan_of("crd", negatives=5).notes) == 1
    queue = plan_of("crd", queue=32).stages[0].loss["crd"][1]
    assert isinstance(queue, Queue) and queue.loss.memory_student.shape == (32, 128) and not queue.needs_index
    large = replace(info(), labels=torch.arange(65536) % CLASSES)
    assert plan_of("crd", replace(pair_of(), data=large)).notes == (
        "crd: two banks of 65,536 x 128 numbers take 64.0 MiB.",
    )


def test_named_stages() -> None:
    pair = pair_of(SHAPES, FOUR)
    term = plan_of("at", pair, stages=("stage1", "stage3:stage4")).stages[0].loss["at"][1]
    assert (term.student_taps, term.teacher_taps) == (("stage1", "stage3"), ("stage1", "stage4"))
    boundaries = plan_of("ab", pair, stages=("stage1", "stage3:stage4")).stages[0].loss["ab"][1]
    assert boundaries.teacher_taps == ("stage1.pre", "stage4.pre")
    last = plan_of("sp", pair).stages[0].loss["sp"][1]
    assert (last.student_taps, last.teacher_taps) == (("stage3",), ("stage4",))


ONE_CLASS = replace(pair_of(), data=replace(info(), labels=torch.zeros(12, dtype=torch.int64)))
STREAM = replace(pair_of(), data=replace(info(), labels=torch.zeros(0, dtype=torch.int64)))
ODD = pair_of(without("stage2"), left_out={"student": {"stage2": "fires twice."}})
DEEPER = pair_of(SHAPES, FOUR)
THREE_AND_FOUR = r"student has 3 \(stage1 \[16, 32, 32\].*teacher has 4"
SUGGESTED = r"student has 3 \(stage1.pre .*'\[\"stage1:stage1\", \"stage2:stage3\", \"stage3:stage4\"\]'"
MAP_METHODS = ("at", "nst", "vid", "fsp", "kdsvd", "reviewkd", "hsakd")
REFUSED: list[tuple[str, Pair, dict[str, Any], str]] = [
    *((name, replace(pair_of(), teacher=None), {}, "Say --teacher") for name in PUBLISHED if name != "one"),
    *((name, DEEPER, {}, THREE_AND_FOUR) for name in MAP_METHODS),
    ("ab", DEEPER, {}, SUGGESTED),
    *((name, pair_of(TOKENS, SHAPES), {}, r"of the student is tokens of shape \[65, 192\]") for name in MAP_METHODS),
    *((name, pair_of(SHAPES, TOKENS), {}, "of the teacher is tokens") for name in ("fitnet", "sp", "ft", "irg", "ab")),
    *((name, pair_of(WIDE, SHAPES), {}, r"\[32, 32, 32\].*\[16, 32, 32\]") for name in ("fsp", "kdsvd")),
    *((name, pair_of(without("pooled")), {}, "linear classifier") for name in ("cc", "rkd", "pkt", "crd", "irg")),
    ("ab", pair_of(without(".pre")), {}, r"values before the activations of the stages; none are known of the student"),
    ("ab", pair_of(without(".pre"), left_out={"student": {"stage1.pre": "it is odd."}}), {}, r"student \(it is odd.\)"),
    ("at", pair_of(without("1", "2", "3")), {}, "none are known of the student"),
    ("at", pair_of(), {"stages": ("stage9",)}, "tap of the student .* named 'stage9'"),
    ("at", pair_of(), {"stages": ("stage1:stage2", "stage2")}, "teacher's stage2 is named twice"),
    ("at", pair_of(), {"stages": ()}, "at least one stage"),
    ("at", ODD, {"stages": ("stage2",)}, "fires twice"),
    ("fitnet", pair_of(), {"stage": "stage7"}, "named 'stage7'"),
    ("fsp", pair_of(), {"stages": ("stage1",)}, "two or more; got stage1 alone"),
    ("kdsvd", pair_of(), {"stages": ("stage1",)}, "needs two or more"),
    ("irg", pair_of(), {"stages": ("stage1",)}, "irg compares two maps; --options.stages names 1"),
    ("ft", pair_of(), {"rate": 1.5}, "rate is the share"),
    ("ft", pair_of(), {"rate": 0.0}, "rate must be above 0"),
    ("ab", pair_of(), {"init_epochs": 0}, "init_epochs must be above 0"),
    ("crd", pair_of(), {"momentum": 1.0}, "momentum is the share"),
    ("crd", pair_of(), {"queue": -1}, "queue is a number of rows"),
    ("crd", ONE_CLASS, {}, "12 training images are of one class"),
    ("crd", STREAM, {}, "not known .of a stream.*--options.queue"),
    ("dkd", pair_of(), {"warm_up": -1.0}, "warm_up must be 0 or more; got -1"),
    ("dkd", pair_of(), {"temperature": 0.0}, "temperature must be above 0"),
    ("one", pair_of(), {"branches": 1}, "one needs 2 branches or more"),
    ("one", pair_of(without("1", "2")), {}, "one branches before the student's last stage"),
]


@pytest.mark.parametrize(("method", "pair", "options", "message"), REFUSED)
def test_refused(method: str, pair: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_of(method, pair, **options)


@pytest.mark.parametrize("method", ["one", "hsakd"])
def test_networks_whose_tails_are_not_known(method: str) -> None:
    with pytest.raises(UserError, match="cannot be copied"):
        plan_of(method, Pair(SHAPES, SHAPES, info()))


LENGTHS = [  # of the stage or ramp for students of 240, 300, 60, 30, 5 and 1 epochs
    ("sskd", "head_epochs", (60, 75, 15, 8, 1, 1)),
    ("hsakd", "branch_epochs", (100, 125, 25, 12, 2, 1)),
    ("ab", "init_epochs", (30, 38, 8, 4, 1, 1)),
    ("fsp", "init_epochs", (30, 38, 8, 4, 1, 1)),
    ("ft", "init_epochs", (30, 38, 8, 4, 1, 1)),
    ("dkd", "warm_up", (20, 25, 5, 2, 1, 1)),
    ("one", "ramp_up", (64, 80, 16, 8, 1, 1)),
]


@pytest.mark.parametrize(("method", "option", "lengths"), LENGTHS)
def test_lengths_are_scaled_with_the_students_schedule(method: str, option: str, lengths: tuple[int, ...]) -> None:
    def length_of(plan: Plan) -> float:
        term = next((one for _, one in plan.stages[-1].loss.values() if hasattr(one, option)), None)
        return plan.stages[0].epochs if term is None else getattr(term, option)

    published = {"one": "80 of 300"}.get(method, f"{lengths[0]} of 240")
    for epochs, length in zip((240, 300, 60, 30, 5, 1), lengths, strict=True):
        seven: dict[str, Any] = {option: 7}
        scaled, given = plan_of(method, epochs=epochs), plan_of(method, epochs=epochs, **seven)
        assert (length_of(scaled), length_of(given), given.notes) == (length, 7, ())
        many = f"{length} epoch{'s' if length > 1 else ''}"
        note = f"{option}: {many}, the published {published} beside the student's {epochs} (--options.{option} N for "
        assert scaled.notes == (() if f"{length} of" in published else (f"{note}another number).",))
        assert complete(METHODS[method], {}, epochs)[option] == length, "what a run's config holds"


def test_hsakd_trains_with_nesterovs_momentum() -> None:
    assert all(stage.optim.nesterov for stage in plan_of("hsakd").stages)
    assert not any(stage.optim.nesterov for stage in plan_of("hsakd", nesterov=False).stages)
    with pytest.raises(UserError, match=r"momentum above 0.*--options.nesterov false"):
        METHODS["hsakd"](pair_of(), epochs=1, optim=Optim(lr=0.1, momentum=0))
    own = METHODS["hsakd"](pair_of(), epochs=1, optim=Optim(lr=0.1, nesterov=True), nesterov=False)
    assert all(stage.optim.nesterov for stage in own.stages)
