"""A stand-in for a GPU that records steps and replays them, with what its allocator is told."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sskd.train import advance
from sskd.train.advance import Captured
from sskd.train.loop import Trainer
from tests.trainers import rounded


class Stream:
    """Of a GPU that does everything at once."""

    device = "cpu"

    def __init__(self, device: str) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        pass


class Graph:
    """Replays a step as a graph does: on the values that are in their places then."""

    def __init__(self) -> None:
        self.captured = next(one for one in ALIVE[::-1])
        self.replayed, self.recording = 0, True

    def reset(self) -> None:
        if not self.recording:
            POOLS.clear()

    def replay(self) -> None:
        self.replayed += 1
        one = self.captured
        assert one._batch is not None and one._losses is not None
        found = one.at(one._rate, one._batch)
        for kept, value in zip(tree_leaves(one._losses), tree_leaves(found), strict=True):
            kept.copy_(value.detach())


ALIVE, TRAINER = list[Captured](), list[Trainer]()
POOLS = dict[object, str]()  # what the allocator does with each


def recorded_into(_: Stream | None = None) -> tuple[int, int]:
    POOLS[0, len(POOLS)] = "recording"
    return 0, len(POOLS) - 1


def end(index: int, pool: object) -> None:
    if POOLS.get(pool) != "recording":
        raise RuntimeError("not recording to this pool")
    POOLS[pool] = "kept"


def state(one: Captured) -> list[Tensor]:
    trained = [p for group in one.optimizer.param_groups for p in group["params"]]
    owners = [one.step, TRAINER[-1].student, *TRAINER[-1].plan.modules.values()]
    buffers = [value for owner in owners for value in owner.buffers()]
    groups = (trained, buffers, tree_leaves(one.optimizer.state_dict()["state"]))
    return [value for group in groups for value in group if isinstance(value, Tensor)]


@contextmanager
def recording(graph: Graph, pool: object, stream: Stream, **given: Any) -> Iterator[None]:
    """What runs here leaves nothing behind, as what is recorded by a GPU is not run."""
    before = copy.deepcopy([value.detach() for value in state(graph.captured)])
    yield
    with torch.no_grad():
        for value, old in zip(state(graph.captured), before, strict=True):
            value.copy_(old)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the calls to CUDA that a captured step makes."""
    ALIVE.clear()
    POOLS.clear()
    rounded(monkeypatch)
    made = Captured.__init__

    def remembered(self: Captured, *given: Any) -> None:
        made(self, *given)
        ALIVE.append(self)

    def watched(work: Callable[[], object]) -> int:
        work()
        return 0

    monkeypatch.setattr(Captured, "__init__", remembered)
    monkeypatch.setattr(advance, "synchronisations", watched)
    stand_ins: dict[str, Any] = {"Stream": Stream, "CUDAGraph": Graph, "graph": recording}
    generator = SimpleNamespace(clone_state=lambda: None, graphsafe_set_state=lambda state: None)
    stand_ins |= {"default_generators": [generator], "graph_pool_handle": recorded_into}
    stand_ins |= {"current_stream": Stream, "stream": lambda _: nullcontext(), "set_stream": lambda _: None}
    for name, one in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, one)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda index, pool: POOLS.pop(pool), raising=False)


class Unended(Exception):
    """Of a step that does something that no graph records, so that the recording cannot be ended."""


@contextmanager
def unended(graph: Graph, pool: object, stream: Stream, **given: Any) -> Iterator[None]:
    try:
        raise Unended("operation not permitted\nwhen stream is capturing")
        yield
    except Unended:
        raise RuntimeError("the end of the recording fails too") from None


@contextmanager
def ended(graph: Graph, pool: object, stream: Stream, **given: Any) -> Iterator[None]:
    with recording(graph, pool, stream):
        yield
    POOLS[pool], graph.recording = "of the graph", False
    raise AssertionError


FAILING = {"operation not permitted when stream is capturing": unended, "AssertionError": ended}
