"""What a run of several processes may do besides: go on as another number, in the middle of an epoch; run its batch in
parts; be compiled as one graph.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.train import loop
from sskd.train.averaging import Averaging
from sskd.train.checkpoint import Checkpoint
from sskd.train.distributed import World, join
from sskd.train.gradients import gradients_of
from sskd.train.loop import Schedule
from tests.processes import together
from tests.reading import Reads
from tests.test_distributed import ALL, differences, shorten
from tests.trainers import SIZE, Kept, batch_at, build, steps_of

RESUMED = ("sskd", "bank")
ONE_GRAPH = partial(torch.compile, backend="aot_eager", fullgraph=True, dynamic=False)
SAVES = Schedule(SIZE, 0, checkpoint_every=0.0)  # after every step


def run(name: str, world: World, state: Checkpoint | None) -> Kept:
    kept = Kept(state)
    trainer = build(ALL[name], "fp64", kept, epochs=2, schedule=SAVES, world=world)
    shorten(trainer.plan)
    trainer.fit()
    return kept


def middle(kept: Kept) -> Checkpoint:
    """The last stage's first checkpoint within an epoch: after one of two steps."""
    last = kept.saved[-1]["stage"]
    return next(state for state in kept.saved if state["stage"] == last and state["part"]["steps"] == 1)


def end(kept: Kept) -> dict[str, Tensor]:
    state = kept.saved[-1]["modules"]
    found = {f"{module}/{key}": value for module, values in state.items() for key, value in values.items()}
    losses = [float(value) for record in kept.records[-1:] for value in record["loss"].values()]
    return {**found, "of the epoch": torch.tensor(losses, dtype=torch.float64)}


def gradients(name: str, world: World, micro_batch: int = 0, compiled: bool = False) -> dict[str, Tensor]:
    """Of the first step of each stage. In parts: with batch norms in eval, whose statistics depend on the parts."""
    found = dict[str, Tensor]()
    for at, step, parameters in steps_of(build(METHODS[name], "fp64", world=world)):
        for part in (part for module in at.modules.values() for part in module.modules()):
            if micro_batch and isinstance(part, _NormBase):
                part.eval()
        batch = batch_at(at, 0)
        if compiled:
            torch.autograd.backward(ONE_GRAPH(step)(batch).total)
        else:
            step.execution = replace(step.execution, micro_batch=micro_batch)
            gradients_of(step)(batch)
        Averaging(parameters, world)()
        found |= {f"{at.stage.name}/{i}": p.grad for i, p in enumerate(parameters) if p.grad is not None}
    return found


def other_files(world: World) -> str:
    try:
        world.refuse_others({"data": "same", "teacher": world.share.rank})
    except UserError as error:
        return str(error)
    return ""


def first_weights(world: World) -> list[float]:
    """Of convolutions that each process has drawn for itself."""
    module = nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    nn.init.constant_(module.weight, world.share.rank + 7.0)
    world.spread([module])
    return [module.weight.min().item(), module.weight.max().item()]


def reached_by_one(world: World) -> list[list[float | None]]:
    """Gradients of four numbers after each of three steps: all processes reach the first, the last process alone the
    second, none the third, the last process the fourth at the second step only. After it all of them look.
    """
    numbers, found = [nn.Parameter(torch.zeros(1)) for _ in range(4)], list[list[float | None]]()
    averaging = Averaging(numbers, world)
    for step in range(3):
        for number in numbers:
            number.grad = None
        mine = [0, *([1] if world.share.rank == 2 else []), *([3] if world.share.rank == 2 and step == 1 else [])]
        torch.autograd.backward(sum((numbers[i] * 3 for i in mine), torch.zeros(1)))
        with Reads() as reads:
            averaging()
        assert reads.count == (step == 0)
        found.append([None if n.grad is None else n.grad.item() for n in numbers])
        if step == 1:
            averaging.look()
    return found


def everything(states: dict[str, Any]) -> dict[str, Any]:
    """In one process of several: all that the tests below look at."""
    loop.INTERVAL = -1.0
    world = join("cpu", SIZE, "global", "synchronised")
    whole = {name: run(name, world, state) for name, state in states.items()}
    return {
        "ends": {name: end(kept) if world.first else {} for name, kept in whole.items()},
        "middles": {name: middle(kept) for name, kept in whole.items()},
        "told": other_files(world),
        "spread": first_weights(world),
        "reached": reached_by_one(world),
        "parts": gradients("crd", world, micro_batch=1),
        "compiled": gradients("sskd", world, compiled=True),
    }


def test_what_several_processes_may_do_besides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "INTERVAL", -1.0)
    alone = {name: run(name, World(), None) for name in RESUMED}
    from_one: dict[str, Any] = {name: middle(kept) for name, kept in alone.items()}
    three, *others = together(everything, 3, tmp_path, from_one)
    for name in RESUMED:  # one process, then three; three, then one
        assert differences(end(alone[name]), three["ends"][name]) < 1e-9, name
        assert differences(end(alone[name]), end(run(name, World(), three["middles"][name]))) < 1e-9, name
    assert three["told"] == "" and others[1]["told"].startswith("Process 2 has other teacher than the first.")
    assert [one["spread"] for one in (three, *others)] == [[7.0, 7.0]] * 3
    waited = [[3.0, 1.0, None, None], [3.0, 1.0, None, None], [3.0, 1.0, None, 0.0]]
    assert [one["reached"] for one in (three, *others)] == [waited] * 3
    parts, whole = gradients("crd", World(), micro_batch=SIZE), gradients("sskd", World())
    for found in (three, *others):
        assert differences(parts, found["parts"]) < 1e-9
        assert differences(whole, found["compiled"]) < 1e-9
