"""Where views never change, the frozen teacher sees each image once, and the head that it trains is the same."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from sskd.data.batches import Resident
from sskd.data.crops import Padded
from sskd.methods import METHODS
from sskd.methods.plan import Plan
from sskd.train import remembered
from sskd.train.loop import Data, Trainer
from tests.trainers import SIZE, Kept, batch_at, build, steps_of

EPOCHS, IMAGES = 3, 2 * SIZE


def head_alone(*given: Any, epochs: int, **options: Any) -> Plan:
    plan = METHODS["sskd"](*given, epochs=epochs, **options, head_epochs=epochs)
    return replace(plan, stages=plan.stages[:1])


def trained(padding: int, epochs: int = EPOCHS) -> tuple[Trainer, Kept, list[int]]:
    """A trainer that has run its head, and of how many views the teacher was asked at a time."""
    kept, seen = Kept(), list[int]()
    trainer = build(head_alone, "fp64", kept, epochs)
    feed = Resident(trainer.data.train.pixels, trainer.data.train.labels, Padded(0.0, padding))  # type: ignore[attr-defined]
    trainer.data = Data(feed, feed, {})
    assert trainer.teacher is not None
    trainer.teacher.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    trainer.fit()
    return trainer, kept, seen


def evaluated(epochs: int) -> tuple[list[Any], int]:
    """What a head and its student are measured at, where crops are drawn; how many views the teacher was asked for."""
    kept, seen = Kept(), list[int]()
    trainer = build(partial(METHODS["sskd"], pretext="exemplar", head_epochs=epochs), "fp64", kept, 1)
    trainer.teacher.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))  # type: ignore[union-attr]
    trainer.fit()
    return [(record["validation"], record.get("fresh")) for record in kept.records], sum(seen)


def test_the_teacher_sees_evaluation_images_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a split and of fresh views, in each epoch the same numbers as if it saw them again."""
    found, seen = evaluated(EPOCHS)
    monkeypatch.setattr(remembered, "ROOM", -1)
    again, every = evaluated(EPOCHS)
    assert found == again and len({str(one) for one in found}) > 2
    assert every - seen == 2 * 4 * IMAGES * (EPOCHS - 1)


def weights(trainer: Trainer) -> list[Tensor]:
    return [value.clone() for value in trainer.plan.modules["teacher_head"].state_dict().values()]


def test_the_same_head_for_one_look_at_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, kept, seen = trained(padding=0)
    assert sum(seen) == 4 * IMAGES
    monkeypatch.setattr(remembered, "ROOM", 0)
    other, expected, asked = trained(padding=0)
    assert sum(asked[1:]) == 4 * IMAGES * EPOCHS  # the first was to see how much room it would take
    for one, two in zip(weights(trainer), weights(other), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-13)
    for record, other_record in zip(kept.records, expected.records, strict=True):
        assert record["loss"] == pytest.approx(other_record["loss"], rel=1e-11)
        assert record["train"] == pytest.approx(other_record["train"])


@pytest.mark.parametrize(("padding", "epochs"), [(1, EPOCHS), (0, 1)])
def test_the_teacher_looks_again_at_what_changes_or_is_seen_once(padding: int, epochs: int) -> None:
    assert trained(padding, epochs)[2] == [4 * SIZE] * (2 * epochs)


def test_nothing_is_recorded_for_the_frozen_backbone() -> None:
    run, step, parameters = next(steps_of(build(METHODS["sskd"], "fp64")))
    batch = batch_at(run, 0)
    assert run.stage.name == "head" and step.student is None
    assert all(value.grad_fn is None for value in step.teacher_outputs(batch).values())
    step(batch).total.backward()
    assert all(p.grad is not None for p in parameters)
    assert run.trainer.teacher is not None and all(p.grad is None for p in run.trainer.teacher.parameters())
