"""A batch that is run in parts gives the gradients of the whole."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from sskd.methods import METHODS
from sskd.methods.plan import Plan
from sskd.train.gradients import gradients_of
from sskd.train.statistics import frozen_statistics, statistics_of_part
from sskd.train.step import Step
from tests.trainers import ASKING, SIZE, bank, batch_at, build, steps_of


def gradients(step: Step, parameters: list[nn.Parameter], batch: Any, micro_batch: int) -> tuple[list[Tensor], Any]:
    step.execution = replace(step.execution, micro_batch=micro_batch)
    for parameter in parameters:
        parameter.grad = None
    torch.manual_seed(0)
    losses = gradients_of(step)(batch)
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters], losses


drawn = ASKING["sskd, drawn answers"]


@pytest.mark.parametrize("method", [*METHODS.values(), bank, drawn], ids=[*METHODS, "bank", "drawn answers"])
@pytest.mark.parametrize("micro_batch", [1, 4])  # 4: with a ragged rest
def test_parts_give_the_gradients_of_the_whole(method: Callable[..., Plan], micro_batch: int) -> None:
    """Batch norms in eval: their statistics alone depend on the parts."""
    for run, step, parameters in steps_of(build(method, "fp64")):
        batch = batch_at(run, 0)
        for module in run.modules.values():
            for part in module.modules():
                if isinstance(part, _NormBase):
                    part.eval()
        whole, expected = gradients(step, parameters, batch, 0)
        parts, losses = gradients(step, parameters, batch, micro_batch)
        scale = max(float(one.abs().max()) for one in whole)
        assert scale > 0
        worst = max(float((one - other).abs().max()) for one, other in zip(whole, parts, strict=True))
        assert worst < 1e-11 * scale
        torch.testing.assert_close(losses.total, expected.total, rtol=1e-12, atol=0)
        assert losses.remembered.keys() == expected.remembered.keys()


def test_all_at_once_is_the_whole_with_batch_norms_in_training() -> None:
    """Running statistics, too, are moved once."""
    states = []
    for micro_batch in (0, SIZE):
        for run, step, parameters in steps_of(build(METHODS["sskd"], "fp64")):
            if run.stage.name == "student":
                found, _ = gradients(step, parameters, batch_at(run, 0), micro_batch)
                states.append([*found, *(v.double() for v in run.modules["student"].state_dict().values())])
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_evaluation_runs_as_few_at_a_time() -> None:
    """With the same outcome, in both stages."""
    trainer, sizes = build(METHODS["sskd"], "fp64"), list[int]()
    for network in (trainer.student, trainer.teacher):
        network.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))  # type: ignore[union-attr]
    for run, step, _ in steps_of(trainer):
        for module in run.modules.values():
            module.eval()
        batch = batch_at(run, 0)
        whole = step.measure(batch)
        sizes.clear()
        step.execution = replace(step.execution, micro_batch=4)
        parts = step.measure(batch)
        assert sizes == [4 * 4, 4 * 2] and parts.keys() == whole.keys()
        for key, value in whole.items():
            torch.testing.assert_close(parts[key], value, rtol=1e-12, atol=0)


def test_frozen_statistics() -> None:
    norm, values = nn.BatchNorm2d(2), torch.rand(3, 2, 4, 4)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    with frozen_statistics(norm):
        assert not torch.equal(norm(values), values)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
    norm(values)
    assert norm.num_batches_tracked == 1 and not torch.equal(norm.state_dict()["running_mean"], before["running_mean"])


def test_parts_are_remembered_as_much_as_the_whole() -> None:
    """Also of other sizes than each other. They see a part's variance, so here all parts have the whole's."""
    values = torch.rand(1, 2, 4, 4, dtype=torch.float64)
    whole, parts = nn.BatchNorm2d(2).double(), nn.BatchNorm2d(2).double()
    for images in (values, values - 3):
        whole(images.expand(9, -1, -1, -1))
        for size in (4, 4, 1):
            with statistics_of_part(parts, size / 9):
                parts(images.expand(size, -1, -1, -1))
    assert parts.momentum == whole.momentum == 0.1
    torch.testing.assert_close(parts.running_mean, whole.running_mean, rtol=1e-12, atol=0)
    # Each of the sizes divides by one less than its number of values.
    torch.testing.assert_close(parts.running_var, whole.running_var, rtol=0.02, atol=0)


def test_an_average_over_everything_stays_one() -> None:
    norm = nn.BatchNorm2d(2, momentum=None)
    with statistics_of_part(norm, 0.5):
        norm(torch.ones(1, 2, 1, 4))
        norm(torch.zeros(1, 2, 1, 4))
    torch.testing.assert_close(norm.running_mean, torch.full((2,), 0.5))


def test_a_batch_in_parts_moves_running_statistics_as_far() -> None:
    """Of images that are all alike, so that parts have the whole batch's mean."""
    found = []
    for micro_batch in (0, 4):
        for run, step, parameters in steps_of(build(METHODS["kd"], "fp64")):
            batch = batch_at(run, 0)
            batch = batch._replace(images=batch.images[:1].expand_as(batch.images).contiguous())
            gradients(step, parameters, batch, micro_batch)
            state = run.modules["student"].state_dict()
            found.append(torch.cat([value.flatten() for key, value in state.items() if key.endswith("running_mean")]))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)
