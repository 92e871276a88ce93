"""What a run of several processes may do besides: go on as another number, in the middle of an epoch; run its batch in
parts; be compiled as one graph.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from sskd.methods import METHODS
from sskd.train import loop
from sskd.train.distributed import World, join
from sskd.train.gradients import gradients_of
from sskd.train.loop import Schedule
from tests.processes import together
from tests.test_distributed import ALL, differences, shorten
from tests.trainers import SIZE, Kept, batch_at, build, steps_of

RESUMED = ("sskd", "crd", "bank")
RELATING = ("sskd", "crd", "rkd", "kd")
ONE_GRAPH = partial(torch.compile, backend="aot_eager", fullgraph=True, dynamic=False)
SAVES = Schedule(SIZE, 0, checkpoint_every=0.0)  # after every step


def run(name: str, world: World, state: dict[str, Any] | None) -> Kept:
    kept = Kept(state)
    trainer = build(ALL[name], "fp64", kept, epochs=2, schedule=SAVES, world=world)
    shorten(trainer.plan)
    trainer.fit()
    return kept


def middle(kept: Kept) -> dict[str, Any]:
    """The last stage's first checkpoint within an epoch: after one of two steps."""
    last = kept.saved[-1]["stage"]
    return next(state for state in kept.saved if state["stage"] == last and state["part"]["steps"] == 1)


def end(kept: Kept) -> dict[str, Tensor]:
    state = kept.saved[-1]["modules"]
    found = {f"{module}/{key}": value for module, values in state.items() for key, value in values.items()}
    losses = [float(value) for record in kept.records[-1:] for value in record["loss"].values()]
    return {**found, "of the epoch": torch.tensor(losses, dtype=torch.float64)}


def gradients(name: str, world: World, micro_batch: int = 0, compiled: bool = False) -> dict[str, Tensor]:
    """Of the first step of each stage, its batch norms in eval: their statistics depend on the parts."""
    found = dict[str, Tensor]()
    for at, step, parameters in steps_of(build(METHODS[name], "fp64", world=world)):
        for module in at.modules.values():
            for part in module.modules():
                if isinstance(part, _NormBase):
                    part.eval()
        batch = batch_at(at, 0)
        if compiled:
            torch.autograd.backward(ONE_GRAPH(step)(batch).total)
        else:
            step.execution = replace(step.execution, micro_batch=micro_batch)
            gradients_of(step)(batch)
        world.average_gradients(parameters)
        found |= {f"{at.stage.name}/{i}": p.grad for i, p in enumerate(parameters) if p.grad is not None}
    return found


def everything(states: dict[str, Any]) -> dict[str, Any]:
    """In one process of several: all that the tests below look at."""
    loop.INTERVAL = -1.0
    world = join("cpu", SIZE, "global", "synchronised")
    whole = {name: run(name, world, state) for name, state in states.items()}
    return {
        "ends": {name: end(kept) if world.first else {} for name, kept in whole.items()},
        "middles": {name: middle(kept) for name, kept in whole.items()},
        "parts": {name: gradients(name, world, micro_batch=1) for name in RELATING},
        "compiled": {name: gradients(name, world, compiled=True) for name in RELATING},
    }


def test_what_several_processes_may_do_besides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "INTERVAL", -1.0)
    alone = {name: run(name, World(), None) for name in RESUMED}
    from_one: dict[str, Any] = {name: middle(kept) for name, kept in alone.items()}
    three, *others = together(everything, 3, tmp_path, from_one)
    for name in RESUMED:  # one process, then three; three, then one
        assert differences(end(alone[name]), three["ends"][name]) < 1e-9, name
        assert differences(end(alone[name]), end(run(name, World(), three["middles"][name]))) < 1e-9, name
    for name in RELATING:
        whole = gradients(name, World())
        for found in (three, *others):
            assert differences(whole, found["parts"][name]) < 1e-9, name
            assert differences(whole, found["compiled"][name]) < 1e-9, name
