"""What methods and the loop promise each other."""

import copy
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sskd.curves import with_curves
from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Stage, Term
from sskd.models.network import Network
from sskd.models.normalisation import Normalisation
from sskd.train.choose import has_compiler
from sskd.train.loop import Schedule
from sskd.train.optim import build_optimizer
from sskd.train.step import Losses
from sskd.views.pretext import Batch, Plain
from tests.trainers import ASKING, Kept, bank, batch_at, build, equal, states, steps_of


class Reads(UserDict[str, Tensor]):
    """Outputs that remember which taps were looked at."""

    def __init__(self, values: Outputs) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        self.read.add(key)
        return super().__getitem__(key)


@pytest.mark.parametrize("method", METHODS.values(), ids=[*METHODS])
def test_every_tap_asked_for_is_read(method: Callable[..., Plan]) -> None:
    for run, step, _ in steps_of(build(method)):
        batch = batch_at(run, 0)
        outputs = {"student": step._outputs(step.student, batch), "teacher": step.teacher_outputs(batch)}
        for _, term in run.stage.loss.values():
            student, teacher = Reads(outputs["student"]), Reads(outputs["teacher"])
            term(student, teacher, batch)
            assert student.read == set(term.student_taps)
            assert teacher.read == set(term.teacher_taps)


class Paraphraser(Term):
    """A stand-in for FT's first stage: reads the teacher alone, watches nothing."""

    teacher_taps = ("stage3",)

    def __init__(self, coder: nn.Module) -> None:
        super().__init__()
        self.borrowed = (coder,)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        feature = teacher["stage3"][:, 0]
        return (self.borrowed[0](feature) - feature).square().mean()


def paraphrasing(pair: Pair, *, epochs: int, optim: Optim) -> Plan:
    coder = nn.Conv2d(64, 64, 1)
    stage = Stage("paraphraser", {"code": (1.0, Paraphraser(coder))}, ("coder",), epochs, optim, shared=True)
    return Plan((stage,), Plain(), {"coder": coder})


def test_a_stage_may_measure_nothing() -> None:
    kept = Kept()
    build(paraphrasing, kept=kept, epochs=12).fit()
    assert [record["validation"] for record in kept.records] == [{}] * 12
    first, last = (kept.records[i]["loss"]["code"] for i in (0, -1))
    assert last < first


def test_curves_are_written_and_passed_on(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    class Told(Kept):
        def epoch(self, record: dict[str, Any], epochs: int) -> None:
            self.records.append(record)

    record = {"stage": "student", "epoch": 3, "step": 30, "lr": 0.5, "loss": {"ce": 1.25}, "test": {"top1": 0.75}}
    told = Told()
    with_curves(told, tmp_path).epoch(record, 3)
    assert told.records == [record]
    written = accumulator.EventAccumulator(str(tmp_path))
    written.Reload()
    assert set(written.Tags()["scalars"]) == {"student/lr", "student/loss/ce", "student/test/top1"}
    event = written.Scalars("student/loss/ce")[0]
    assert (event.step, event.value) == (3, 1.25)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.0,)), ((0.5, 0.5), (1.0,)), ((float("nan"),), (1.0,))])
def test_impossible_normalisations_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="normalisation from the test cannot be used"):
        Normalisation(mean, std, "the test")


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(UserError, match="nesterov needs"):
        Optim(nesterov=True, momentum=0.0)
    assert Optim(nesterov=True).momentum == 0.9


EVERY: dict[str, Callable[..., Plan]] = {**METHODS, **ASKING, "bank": bank}
every = pytest.mark.parametrize("method", EVERY.values(), ids=EVERY)


@every
def test_stages_train_what_they_say(method: Callable[..., Plan]) -> None:
    trainer = build(method)
    teacher = cast(Network, trainer.teacher)
    for run, step, parameters in steps_of(trainer):
        terms = {name: term for name, (_, term) in run.stage.loss.items()}
        for term in terms.values():
            assert set(term.student_taps) <= {*trainer.student.taps, "logits"}
            assert set(term.teacher_taps) <= {*teacher.taps, "logits"}
        state = [t for m in run.modules.values() for t in (*m.parameters(), *m.buffers()) if t.numel()]
        assert len({t.data_ptr() for t in state}) == len(state), "one tensor in two modules"
        assert {id(p) for p in parameters} == {
            id(p) for m in run.modules.values() for p in m.parameters() if p.requires_grad
        }
        # An initialisation trains a student whose classifier no term reads yet.
        idle = {"backbone.fc.weight", "backbone.fc.bias"} if run.stage.name == "init" else set[str]()
        before, optimizer = states(run), build_optimizer(parameters, run.stage.optim)
        for i in range(2):
            batch = batch_at(run, i)
            losses: Losses = step(batch)
            assert losses.terms.keys() == terms.keys()
            assert all(value.isfinite() for value in (losses.total, *losses.terms.values(), *losses.watched.values()))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(losses.total)
            reached = {id(p) for p in parameters if p.grad is not None}
            for name in run.stage.trains:
                without = {key for key, p in run.modules[name].named_parameters() if id(p) not in reached}
                assert without == (idle if name == "student" else set()), "trained, but without a gradient"
            optimizer.step()
            step.update(losses, batch)
        after = states(run)
        assert equal(before["teacher"], after["teacher"])
        changed = {name for name in before if not equal(before[name], after[name])}
        buffers = {name for name, term in terms.items() if [*term.buffers()]}  # banks
        assert set(run.stage.trains) <= changed <= {*run.stage.trains, *buffers}
        for name in run.stage.trains:
            parts = {key for key, _ in run.modules[name].named_parameters()} - idle
            assert not any(torch.equal(before[name][key], after[name][key]) for key in parts)


@every
def test_step_is_one_graph(method: Callable[..., Plan]) -> None:
    """Compiled it takes different batches without compiling again, and computes what it computes as it is."""
    for run, step, parameters in steps_of(build(method, "fp64")):
        start, results = states(run), list[list[Tensor]]()
        torch._dynamo.reset()
        with torch._dynamo.config.patch(error_on_recompile=True):
            for call in (step, torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=False)):
                for name, module in run.modules.items():
                    module.load_state_dict(start[name])
                found: list[Tensor] = []
                for i in range(3):
                    batch = batch_at(run, i)
                    losses: Losses = call(batch)
                    grads = torch.autograd.grad(losses.total, parameters, allow_unused=run.stage.name == "init")
                    step.update(losses, batch)
                    found += [losses.total, *losses.terms.values(), *losses.watched.values()]
                    found += [grad for grad in grads if grad is not None]
                found += [value for state in states(run).values() for value in state.values()]
                results.append(found)
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)


def tiny(num_classes: int, in_chans: int) -> nn.Module:
    """A network that inductor compiles in seconds."""
    first = (nn.Conv2d(in_chans, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(6, num_classes))


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler on this machine")
@pytest.mark.parametrize("name", ["sskd", "crd"])
def test_step_compiles_to_the_same_numbers(name: str) -> None:
    """With the compiler that users get: inductor."""
    networks = (f"{__name__}:tiny", f"{__name__}:tiny")
    for run, step, parameters in steps_of(build(METHODS[name], "fp64", networks=networks)):
        torch._dynamo.reset()
        batch = batch_at(run, 0)
        results = []
        for call in (step, torch.compile(step, fullgraph=True, dynamic=False)):
            losses: Losses = call(batch)
            results.append([losses.total, *losses.terms.values(), *torch.autograd.grad(losses.total, parameters)])
        torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


def test_bank_is_kept_and_resumed() -> None:
    """What a term draws and what it remembers are part of the run."""
    whole = Kept()
    build(bank, kept=whole, epochs=2).fit()
    memories = [state["modules"]["bank"]["memory"] for state in whole.saved]
    assert len(memories) == 2 and memories[0].any(1).all() and not torch.equal(*memories)
    assert {"ce", "bank", "total"} <= whole.records[0]["loss"].keys()
    second = Kept(whole.saved[0])
    build(bank, kept=second, epochs=2).fit()
    assert [record["epoch"] for record in second.records] == [2]
    assert equal(second.saved[-1]["modules"]["bank"], whole.saved[-1]["modules"]["bank"])
    assert equal(second.saved[-1]["modules"]["student"], whole.saved[-1]["modules"]["student"])


def unclocked(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in record.items() if "second" not in key and key not in ("images_per_s", "peak_mib")
    }


def test_a_run_goes_on_in_the_middle_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """From whichever step it was saved at; the means of the epoch are those of all its steps."""
    monkeypatch.setattr("sskd.train.loop.INTERVAL", -1.0)  # look at every step
    schedule, whole = Schedule(3, 0, checkpoint_every=0.0), Kept()
    build(bank, kept=whole, epochs=2, schedule=schedule).fit()
    positions = [(state["epoch"], state["part"]["steps"]) for state in whole.saved]
    assert positions == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    for state in whole.saved[:-1]:
        rest = Kept(copy.deepcopy(state))
        build(bank, kept=rest, epochs=2, schedule=schedule).fit()
        missing = len(rest.records)
        assert [unclocked(one) for one in rest.records] == [unclocked(one) for one in whole.records[-missing:]]
        for name in ("bank", "student"):
            assert equal(rest.saved[-1]["modules"][name], whole.saved[-1]["modules"][name])
