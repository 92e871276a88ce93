"""On a GPU: methods compute what they do on the CPU, graphs replay the eager step, and the host never waits."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils._pytree import tree_map

from sskd.memory import peak_memory
from sskd.methods import METHODS
from sskd.methods.plan import Plan
from sskd.train.advance import advance_of, synchronisations
from sskd.train.averaging import Averaging
from sskd.train.gradients import gradients_of
from sskd.train.loop import Schedule
from sskd.train.meters import Part
from sskd.train.optim import build_optimizer
from sskd.train.step import Execution
from tests.trainers import ASKING, SIZE, TRANSFORMED, Kept, bank, batch_at, build, rounded, steps_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
GPU = Execution("cuda", "fp64")
COMPILED = replace(GPU, compiled=True)
WAYS = {
    "eager": GPU,
    "compiled": COMPILED,
    "compiled, CUDA graphs": replace(COMPILED, graphs=True),
    "one CUDA graph": replace(GPU, captured=True),
    "compiled, one CUDA graph": replace(COMPILED, captured=True),
}
ALL = {**METHODS, "bank": bank, **ASKING, **TRANSFORMED}


@pytest.fixture(autouse=True)
def one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded(monkeypatch)


def gradients(method: Callable[..., Plan], execution: Execution) -> Iterator[dict[str, Tensor]]:
    """Of the first step of each stage, and its losses; on a batch made on the CPU, where division rounds otherwise."""
    here, there = (steps_of(build(method, execution=one)) for one in (replace(execution, device="cpu"), execution))
    for (maker, _, _), (_, step, parameters) in zip(here, there, strict=True):
        losses = gradients_of(step)(tree_map(lambda value: value.to(execution.device), batch_at(maker, 0)))
        found = {str(i): p.grad for i, p in enumerate(parameters) if p.grad is not None}
        yield {key: value.cpu() for key, value in (found | losses.terms).items()}


@pytest.mark.parametrize("method", ALL.values(), ids=ALL)
def test_a_method_computes_what_it_does_on_the_cpu(method: Callable[..., Plan]) -> None:
    for expected, found in zip(gradients(method, replace(GPU, device="cpu")), gradients(method, GPU), strict=True):
        assert found.keys() == expected.keys()
        scale = max(float(value.abs().max()) for value in expected.values())
        assert scale > 0
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-9 * scale, msg=key)


def trained(execution: Execution, state: dict[str, Any] | None = None, **changed: Any) -> Kept:
    kept = Kept(state)
    build(METHODS["sskd"], kept=kept, epochs=3, execution=execution, **changed).fit()
    return kept


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_run_is_the_eager_run(way: Execution) -> None:
    """From the first stage to the last, in float64; compiled, with no graph but the first of each stage."""
    expected = trained(GPU)
    torch.compiler.reset()
    counters.clear()
    found = trained(way)
    assert found.notes == expected.notes  # nothing was refused
    assert counters["stats"]["unique_graphs"] == (2 if way.compiled else 0)  # the head, the student
    assert not counters["graph_break"] and not counters["recompiles"]
    for one, other in zip(expected.records, found.records, strict=True):
        for key, value in one["loss"].items():
            assert other["loss"][key] == pytest.approx(value, rel=1e-6), (one["stage"], one["epoch"], key)
    for name, values in expected.saved[-1]["modules"].items():
        for key, value in values.items():
            torch.testing.assert_close(found.saved[-1]["modules"][name][key], value, rtol=1e-5, atol=1e-7, msg=key)


def test_a_run_goes_on_from_its_checkpoint() -> None:
    """In the middle, on the same GPU, as if it had not been stopped."""
    whole = trained(GPU)
    rest = trained(GPU, whole.saved[len(whole.saved) - 3])
    for name, values in whole.saved[-1]["modules"].items():
        for key, value in values.items():
            torch.testing.assert_close(rest.saved[-1]["modules"][name][key], value, rtol=1e-7, atol=1e-9, msg=key)


def waits(execution: Execution, batch_size: int) -> list[int]:
    """How often the host waits for the GPU in an epoch of each stage, after those to warm up."""
    trainer, found = build(METHODS["sskd"], execution=execution, schedule=Schedule(batch_size, 0)), list[int]()
    for run, step, parameters in steps_of(trainer):
        optimizer, averaging = build_optimizer(parameters, run.stage.optim), Averaging(parameters, trainer.world)
        advance = advance_of(step, optimizer, averaging)
        for epoch in range(3):  # of two steps or more: graphs are recorded in the fourth
            run._epoch(advance, epoch, Part())
        found.append(synchronisations(partial(run._epoch, advance, 3, Part())))
        assert not advance.refused
    return found


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_host_never_waits_within_an_epoch(way: Execution) -> None:
    """It does at the epoch's end, when the meters are read: three times the steps, and no wait more."""
    few = waits(way, SIZE)
    torch.compiler.reset()
    assert waits(way, SIZE // 3) == few and all(few)


def test_half_precision_in_one_graph() -> None:
    """As a long run on a GPU is run: the losses are near those of float32."""
    torch.compiler.reset()
    plain = trained(Execution("cuda"))
    fast = trained(Execution("cuda", "bf16", channels_last=True, compiled=True, captured=True))
    for one, other in zip(plain.records, fast.records, strict=True):
        assert other["loss"]["total"] == pytest.approx(one["loss"]["total"], rel=0.1)
    assert peak_memory("cuda") > 0
