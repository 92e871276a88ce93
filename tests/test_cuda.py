"""On a GPU: methods compute what they do on the CPU, graphs replay the eager step, and the host never waits."""

import copy
import gc
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
from sskd.train import advance, loop
from sskd.train.advance import advance_of
from sskd.train.averaging import Averaging
from sskd.train.checkpoint import Checkpoint
from sskd.train.gradients import gradients_of
from sskd.train.loop import Schedule
from sskd.train.meters import Part
from sskd.train.optim import build_optimizer
from sskd.train.step import Execution, Step
from sskd.train.watch import synchronisations
from tests.test_distributed import shorten
from tests.trainers import ASKING, SIZE, TRANSFORMED, Kept, bank, batch_at, build, rounded, steps_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
Method = Callable[..., Plan]
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
    monkeypatch.setattr(loop, "INTERVAL", 1e9)  # else a slow machine would look at the meters within an epoch


def gradients(method: Method, execution: Execution) -> Iterator[dict[str, Tensor]]:
    """Of the first step of each stage, and its losses; on a batch made on the CPU, where division rounds otherwise."""
    here, there = (steps_of(build(method, execution=one)) for one in (replace(execution, device="cpu"), execution))
    for (maker, _, _), (_, step, parameters) in zip(here, there, strict=True):
        losses = gradients_of(step)(tree_map(lambda value: value.to(execution.device), batch_at(maker, 0)))
        found = {str(i): p.grad for i, p in enumerate(parameters) if p.grad is not None}
        yield {key: value.cpu() for key, value in (found | losses.terms).items()}


# The signs of KD-SVD's singular vectors are the solver's, and its loss depends on how those of its stages fall.
ALIKE = {name: method for name, method in ALL.items() if name != "kdsvd"}


@pytest.mark.parametrize("method", ALIKE.values(), ids=ALIKE)
def test_a_method_computes_what_it_does_on_the_cpu(method: Method) -> None:
    for expected, found in zip(gradients(method, replace(GPU, device="cpu")), gradients(method, GPU), strict=True):
        assert found.keys() == expected.keys()
        scale = max(float(value.abs().max()) for value in expected.values())
        assert scale > 0
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-9 * scale, msg=key)


def trained(execution: Execution, state: Checkpoint | None = None, method: Method = METHODS["sskd"]) -> Kept:
    kept = Kept(state)
    trainer = build(method, kept=kept, execution=execution, schedule=Schedule(4, 0))
    shorten(trainer.plan)  # two epochs of three steps
    trainer.fit()
    return kept


def compare(expected: Kept, found: Kept, rtol: float) -> None:
    """Losses of every epoch, and the weights at the end."""
    for one, other in zip(expected.records, found.records, strict=True):
        for key, value in one["loss"].items():
            assert other["loss"][key] == pytest.approx(value, rel=rtol), (one["stage"], one["epoch"], key)
    for name, values in expected.saved[-1]["modules"].items():
        for key, value in values.items():
            there, scale = found.saved[-1]["modules"][name][key], float(value.double().abs().max())
            torch.testing.assert_close(there, value, rtol=rtol, atol=rtol * scale, msg=key)


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
    assert all(record.get("compilations", 0) == (way.compiled and record["epoch"] == 1) for record in found.records)
    assert all(record["waits"] for record in found.records)  # for what was measured, at the epoch's end
    compare(expected, found, 1e-6)


@pytest.mark.parametrize("method", ALL.values(), ids=ALL)
def test_a_method_in_one_graph(method: Method) -> None:
    """All are but KD-SVD, whose decompositions make the host wait."""
    expected, found = trained(GPU, method=method), trained(WAYS["one CUDA graph"], method=method)
    assert (found.notes == expected.notes) is (method is not METHODS["kdsvd"]), found.notes
    compare(expected, found, 1e-6)


def test_a_recording_that_fails_leaves_the_gpu_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps go on, and so does what is drawn at random."""
    expected = trained(GPU, method=METHODS["kdsvd"])
    monkeypatch.setattr(advance, "synchronisations", lambda work: work() and 0)  # nothing is seen before
    found = trained(WAYS["one CUDA graph"], method=METHODS["kdsvd"])
    assert any("no CUDA graph was made of a step" in note for note in found.notes)
    compare(expected, found, 1e-6)
    assert torch.rand(8, device="cuda").unique().numel() == 8
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.empty(1 << 26, dtype=torch.uint8, device="cuda")
    torch.cuda.empty_cache()  # gives nothing back while the allocator believes in a recording
    assert torch.cuda.memory_reserved() == before
    plain, graph = trained(GPU), trained(WAYS["one CUDA graph"])
    assert graph.notes == plain.notes
    compare(plain, graph, 1e-6)


def test_a_recording_without_room_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the steps go on, operation by operation."""
    expected, update = trained(GPU), Step.update

    def hungry(self: Step, *given: Any) -> None:
        update(self, *given)
        if torch.cuda.is_current_stream_capturing():
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")

    monkeypatch.setattr(Step, "update", hungry)
    found = trained(WAYS["one CUDA graph"])
    assert sum("no CUDA graph was made of a step" in note for note in found.notes) == 2  # the head, the student
    compare(expected, found, 1e-6)
    monkeypatch.undo()
    del found
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < 1 << 27


def test_a_run_goes_on_from_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle, on the same GPU, as if it had not been stopped; the rest of it as one graph."""
    whole = trained(GPU)
    monkeypatch.setattr(advance, "WARM", 1)  # of the three steps that are left
    for way in (GPU, WAYS["one CUDA graph"]):
        rest = trained(way, copy.deepcopy(whole.saved[-2]))  # whose momentum is trained on
        assert not any("no CUDA graph" in note for note in rest.notes)
        rest.records = whole.records[: -len(rest.records)] + rest.records
        compare(whole, rest, 1e-7)


def waits(execution: Execution, batch_size: int) -> list[int]:
    """How often the host waits for the GPU in an epoch of each stage, after those to warm up."""
    trainer, found = build(METHODS["sskd"], execution=execution, schedule=Schedule(batch_size, 0)), list[int]()
    for run, step, parameters in steps_of(trainer):
        optimizer, averaging = build_optimizer(parameters, run.stage.optim), Averaging(parameters, trainer.world)
        made = advance_of(step, optimizer, averaging)
        for epoch in range(3):  # of two steps or more: graphs are recorded in the fourth
            run._epoch(made, epoch, Part())
        found.append(synchronisations(partial(run._epoch, made, 3, Part())))
        assert not made.refused
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
    assert fast.notes == plain.notes  # nothing was refused
    for one, other in zip(plain.records, fast.records, strict=True):
        assert other["loss"]["total"] == pytest.approx(one["loss"]["total"], rel=0.1)
    assert peak_memory("cuda") > 0
