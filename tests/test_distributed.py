"""Several processes train as one with the whole batch does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.plan import Plan
from sskd.train.distributed import Relations, World, join
from tests.processes import together
from tests.trainers import ASKING, SIZE, TRANSFORMED, Kept, bank, batch_at, build, steps_of

ALL: dict[str, Callable[..., Plan]] = {**METHODS, **ASKING, **TRANSFORMED, "bank": bank}


def trained(names: list[str], relations: Relations = "global") -> dict[str, dict[str, Tensor]]:
    """What each method has trained, in fp64, after two epochs of two steps in every stage."""
    world = join("cpu", SIZE, relations, "synchronised")
    return {name: _trained(ALL[name], world) for name in names}


def _trained(method: Callable[..., Plan], world: World) -> dict[str, Tensor]:
    kept = Kept()
    trainer = build(method, "fp64", kept, epochs=2, world=world)
    shorten(trainer.plan)
    trainer.fit()
    state = kept.saved[-1]["modules"]
    found = {f"{module}/{key}": value for module, values in state.items() for key, value in values.items()}
    if not world.first:  # what was measured is with the first process
        return found
    losses = [float(value) for record in kept.records for value in record["loss"].values()]
    seen = [record["validation"].get(key, 0.0) for record in kept.records for key in ("top1", "ss_accuracy")]
    return {**found, "losses": torch.tensor([*losses, *seen], dtype=torch.float64)}


def shorten(plan: Plan) -> None:
    for stage in plan.stages:
        object.__setattr__(stage, "epochs", 2)


def differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of two states, relative to each tensor's largest entry."""
    assert one.keys() - {"losses"} == other.keys() - {"losses"}
    worst = 0.0
    for key in one.keys() & other.keys():
        value = one[key]
        scale = max(float(value.double().abs().max()), 1e-6) if value.numel() else 1.0
        worst = max(worst, float((value.double() - other[key].double()).abs().max()) / scale if value.numel() else 0.0)
    return worst


APART = ["sp", "crd", "kd"]


def both(names: list[str]) -> dict[str, dict[str, Tensor]]:
    """What these have trained as one, and a few of them with relations per device."""
    apart = {f"{name} apart": state for name, state in trained(APART, "per_device").items()}
    return trained(names) | apart


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Tensor]]:
    return trained([*ALL])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """Of two processes; starting them takes seconds."""
    return together(both, 2, tmp_path_factory.mktemp("two"), [*ALL])


def worst(alone: dict[str, dict[str, Tensor]], found: list[dict[str, dict[str, Tensor]]]) -> dict[str, float]:
    """By method, where it is more than rounding."""
    names = [name for name in found[0] if name in alone]
    largest = {name: max(differences(alone[name], one[name]) for one in found) for name in names}
    return {name: value for name, value in largest.items() if value > 1e-9}


def test_two_train_as_one(alone: dict[str, dict[str, Tensor]], two: list[dict[str, dict[str, Tensor]]]) -> None:
    assert two[0].keys() >= ALL.keys() and worst(alone, two) == {}


def test_three_train_as_one(alone: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    """Those whose terms relate images or remember them, and two that do not."""
    few = {name: method for name, method in ALL.items() if name not in {**ASKING, **TRANSFORMED}}
    stages = {name: build(method).plan.stages for name, method in few.items()}
    related = [name for name, found in stages.items() if any(t.relates for s in found for _, t in s.loss.values())]
    assert {"sskd", "crd", "rkd", "bank"} <= {*related}
    names = [*related, "kd", "ab"]
    found = together(trained, 3, tmp_path, names)
    assert [*found[0]] == names and worst(alone, found) == {}


def test_relations_per_device_are_other_relations(
    alone: dict[str, dict[str, Tensor]], two: list[dict[str, dict[str, Tensor]]]
) -> None:
    """Terms that relate images then see fewer; terms that remember them still see all."""
    first, second = ({name: one[f"{name} apart"] for name in APART} for one in two)
    assert differences(alone["sp"], first["sp"]) > 1e-6
    assert max(differences(alone[name], first[name]) for name in ("crd", "kd")) < 1e-9
    assert max(differences(second[name], first[name]) for name in APART) == 0


def test_a_batch_that_does_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match=r"64 images do not split evenly among 3\. Say --batch_size 63 or 66"):
        join("cpu", 64, "global", "per_device")


@pytest.mark.parametrize("name", METHODS)
def test_terms_say_whether_they_relate_images(name: str) -> None:
    """A term that does not is a mean over images: halves of a batch average to the whole."""
    for run, step, _ in steps_of(build(METHODS[name], "fp64")):
        batch = batch_at(run, 0)
        for module in run.modules.values():
            module.eval()
        with torch.no_grad():
            student, teacher = step.student_outputs(batch), step.teacher_outputs(batch)
            for key, term in step.terms.items():
                halves = []
                for rows in (slice(0, 3), slice(3, 6)):
                    part = batch._replace(
                        **{k: getattr(batch, k)[rows] for k in ("images", "labels", "index", "asked")}
                    )
                    sides = ({tap: v[rows] for tap, v in side.items()} for side in (student, teacher))
                    halves.append(term(*sides, part))
                whole = term(student, teacher, batch)
                same = torch.allclose(sum(halves) / 2, whole, rtol=1e-9)
                assert same or term.relates, key
