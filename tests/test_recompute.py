"""Blocks that run again in the backward pass: the same numbers, with less kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from sskd.methods import METHODS
from sskd.methods.plan import Plan
from sskd.train.gradients import gradients_of
from sskd.train.recompute import Recomputed, blocks
from sskd.train.step import Step
from tests.conftest import Cli
from tests.interruption import SHORT
from tests.trainers import batch_at, build, states, steps_of


def results(method: Callable[..., Plan], micro_batch: int, recompute: bool) -> list[list[Tensor]]:
    """Of each stage: gradients of one step, and every module's state after it."""
    trainer, found = build(method), list[list[Tensor]]()
    trainer.execution = replace(trainer.execution, micro_batch=micro_batch, recompute=recompute)
    for run, step, parameters in steps_of(trainer):
        torch.manual_seed(0)
        gradients_of(step)(batch_at(run, 0))
        after = [value for module in states(run).values() for value in module.values()]
        found.append([*(p.grad for p in parameters if p.grad is not None), *after])
        for parameter in parameters:
            parameter.grad = None
    return found


@pytest.mark.parametrize("method", METHODS.values(), ids=[*METHODS])
def test_gradients_and_running_statistics_are_the_same(method: Callable[..., Plan]) -> None:
    """To the bit, batch norms in training."""
    for one, other in zip(results(method, 0, False), results(method, 0, True), strict=True):
        assert len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_with_micro_batches() -> None:
    for one, other in zip(results(METHODS["sskd"], 2, False), results(METHODS["sskd"], 2, True), strict=True):
        assert len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Block(nn.Module):
    """With dropout, and a batch norm that averages over all batches."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=None), nn.ReLU(inplace=True), nn.Dropout(0.5)
        )

    def forward(self, images: Tensor) -> Tensor:
        return images + self.inner(images)


def once(network: nn.Module, precision: torch.dtype) -> tuple[list[Tensor], int]:
    """Gradients, buffers and the generator after two steps; bytes kept for the backward pass of the last, but for the
    inputs of recomputed blocks.
    """
    torch.manual_seed(1)
    images, kept, seen = torch.rand(6, 4, 16, 16), 0, set[int]()

    def keep(value: Tensor) -> Tensor:
        nonlocal kept
        kept += 0 if value.data_ptr() in seen else value.nbytes
        seen.add(value.data_ptr())
        return value

    for _ in range(2):
        kept = 0
        seen.clear()
        half = torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16)
        with half, saved_tensors_hooks(keep, lambda value: value):
            loss = network(images).float().square().mean()
        loss.backward()
    values = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    return [*values, *network.buffers(), torch.get_rng_state()], kept


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_dropout_and_autocast(precision: torch.dtype) -> None:
    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(*(Block() for _ in range(4))), nn.Flatten())

    (plain, kept), again = once(network(), precision), network()
    recomputed = Recomputed(again)
    values, kept_again = once(again, precision)
    assert all(torch.equal(one, other) for one, other in zip(plain, values, strict=True))
    assert kept_again < kept / 2
    assert any(isinstance(one, Tensor) and one.dtype == torch.int64 and int(one) == 2 for one in values[:-1])
    recomputed.close()
    assert not any("forward" in module.__dict__ for module in again.modules())
    assert once(again, precision)[1] == kept, "as it was"


def test_what_counts_as_a_block() -> None:
    kinds = {
        name: [type(block).__name__ for block in blocks(timm.create_model(name))] for name in ("resnet50", "test_vit")
    }
    assert kinds["resnet50"] == ["Bottleneck"] * 16
    assert kinds["test_vit"].count("Block") == 6
    mobile = [type(block).__name__ for block in blocks(timm.create_model("mobilenetv3_small_050"))]
    assert mobile.count("InvertedResidual") == 10 and mobile.count("DepthwiseSeparableConv") == 1


def test_a_run(distil: Cli, tmp_path: Path) -> None:
    """Bitwise the same student; the compiler is not asked."""
    weights: list[Any] = []
    for name, more in (("plain", ()), ("again", ("--recompute", "true", "--compiled", "true"))):
        done = distil("--out", tmp_path / name, *SHORT, *more)
        assert done.code == 0, done.err
        weights.append((tmp_path / name / "student" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert "With recompute a step runs in pieces, and is not compiled" in done.out


def test_networks_are_left_as_they_were() -> None:
    trainer = build(METHODS["kd"])
    execution = replace(trainer.execution, recompute=True)
    step = Step(trainer.plan.stages[-1], trainer.student, trainer.teacher, execution)
    changed = [module for module in trainer.student.modules() if "forward" in module.__dict__]
    assert len(changed) == 3
    step.close()
    assert not any("forward" in module.__dict__ for module in trainer.student.modules())
