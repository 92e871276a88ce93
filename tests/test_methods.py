"""Every term against a slow oracle written from the paper, and what the loop expects of every method."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.data.batches import Resident
from sskd.data.source import DataInfo
from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.kd import SoftTargets
from sskd.methods.options import check_options, options_of
from sskd.methods.parts import CrossEntropy
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Stage, Term
from sskd.methods.sskd import PRESETS, HeadTask, Similarity, Transformed
from sskd.models.network import Network, Normalisation, create_network
from sskd.train.loop import Data, Schedule, StageRun, Trainer
from sskd.train.optim import build_optimizer
from sskd.train.protocols import Record
from sskd.train.seeds import generator_at
from sskd.train.step import Execution, Losses, Step
from sskd.views.contrastive import Contrastive
from sskd.views.pretext import Batch, Plain
from tests.oracles import ce, kd, sskd

SHAPE, CLASSES, SIZE = (3, 8, 8), 4, 6
RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
SIZES = (1, 2, 5)
LEVELS = ("mixed", "right", "wrong")

sizes = pytest.mark.parametrize("size", SIZES)
ratios = pytest.mark.parametrize("ratio", RATIOS)
levels = pytest.mark.parametrize("rows", LEVELS)


# Terms against their oracles.


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_of(size: int) -> Tensor:
    return torch.arange(size) * 3 % 7


def batch_of(size: int, views: int) -> Batch:
    asked = torch.zeros(size, views, dtype=torch.int64)
    return Batch(torch.zeros(size, views, 3, 1, 1), labels_of(size), torch.arange(size), asked, torch.tensor(0.0), {})


def same(ours: Tensor, theirs: Tensor, inputs: Sequence[Tensor]) -> None:
    """Equal values and gradients."""
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)
    grads = [torch.autograd.grad(value, inputs, retain_graph=True) for value in (ours, theirs)]
    for mine, slow in zip(*grads, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine, slow, rtol=1e-9, atol=1e-13)


def teacher_logits(size: int, rows: str) -> Tensor:
    """[B, 4, 7], small integers: their errors have few levels, and entries of a row tie."""
    logits = normal(7, size, 4, 7).mul(1.5).round()
    right = nn.functional.one_hot(labels_of(size), 7)[:, None].double()
    return logits if rows == "mixed" else logits + (20 * right if rows == "right" else -20 * right)


def teacher_z(size: int, rows: str) -> Tensor:
    """[B, 4, 6]. Whole axes, for `right` and `wrong`: their cosines are exactly 0 and 1."""
    if rows == "mixed":
        return normal(8, size, 4, 6)
    axis = torch.arange(size)[:, None].repeat(1, 4)
    if rows == "wrong":
        axis[:, 1:] = (axis[:, 1:] + 1) % max(size, 2)
    return 2 * nn.functional.one_hot(axis, 6).double()


@sizes
def test_cross_entropy(size: int) -> None:
    logits = normal(0, size, 3, 7).requires_grad_()
    ours = CrossEntropy()({"logits": logits}, {}, batch_of(size, 3))
    same(ours, ce.cross_entropy(logits[:, 0], labels_of(size).tolist()), [logits])


@sizes
@pytest.mark.parametrize(("temperature", "standardised"), [(4.0, False), (0.5, False), (2.0, True), (1.0, True)])
def test_soft_targets(size: int, temperature: float, standardised: bool) -> None:
    student, teacher = normal(0, size, 2, 7).mul(3).requires_grad_(), normal(1, size, 2, 7).mul(3)
    ours = SoftTargets(temperature, standardised)({"logits": student}, {"logits": teacher}, batch_of(size, 2))
    same(ours, kd.soft_targets(teacher[:, 0], student[:, 0], temperature, standardised), [student])


@sizes
@ratios
@levels
def test_transformed(size: int, ratio: float, rows: str) -> None:
    student, teacher, batch = normal(0, size, 4, 7).requires_grad_(), teacher_logits(size, rows), batch_of(size, 4)
    term = Transformed(4.0, ratio)
    seen: tuple[Outputs, Outputs] = ({"logits": student}, {"logits": teacher})
    slow, kept = sskd.transformed(teacher, student, batch.labels.tolist(), 4.0, ratio)
    same(term(*seen, batch), slow, [student])
    assert rows == "mixed" or len(kept) == (3 * size if rows == "right" else int(3 * size * ratio))
    assert term._kept(seen[1], batch).nonzero()[:, 0].tolist() == kept
    assert term.watch(*seen, batch)["tf_kept"].item() == pytest.approx(len(kept) / (3 * size))


@sizes
@ratios
@levels
def test_similarity(size: int, ratio: float, rows: str) -> None:
    student, target, batch = normal(0, size, 4, 5).requires_grad_(), teacher_z(size, rows), batch_of(size, 4)
    task = Contrastive()
    head = task.head(5, cast(DataInfo, None)).double()
    term = Similarity(task, head, nn.Identity(), 0.5, ratio)
    seen: tuple[Outputs, Outputs] = ({"pooled": student}, {"pooled": target})
    slow, kept = sskd.similarity(target, sskd.project(student, *head.parameters()), 0.5, ratio)
    same(term(*seen, batch), slow, [student, *head.parameters()])
    assert term.watch(*seen, batch)["ss_kept"].item() == pytest.approx(len(kept) / (3 * size))
    if rows != "mixed" and size > 1:
        assert len(kept) == (3 * size if rows == "right" else int(3 * size * ratio))


@sizes
def test_head_task(size: int) -> None:
    task, pooled, batch = Contrastive(), normal(3, size, 4, 5), batch_of(size, 4)
    head = task.head(5, cast(DataInfo, None)).double()
    term = HeadTask(task, head)
    z = sskd.project(pooled, *head.parameters())
    same(term({}, {"pooled": pooled}, batch), sskd.head_task(z), list(head.parameters()))
    found = [sskd.level(row, answer) == 0 for row, answer in zip(*sskd.similarities(z), strict=True)]
    assert term.watch({}, {"pooled": pooled}, batch)["ss_accuracy"].item() == pytest.approx(sum(found) / len(found))


# Plans.


def info() -> DataInfo:
    names, labels = tuple("abcd"), torch.arange(2 * SIZE) % CLASSES
    return DataInfo("few", len(labels), names, labels, (0.5,) * 3, (0.2,) * 3, SHAPE)


def pair_of(pooled: tuple[int, ...] | None = (64,)) -> Pair:
    shapes = {"logits": (CLASSES,)} | ({"pooled": pooled} if pooled is not None else {})
    return Pair(shapes, shapes, info())


def weights_of(plan: Plan) -> dict[str, float]:
    return {name: weight for name, (weight, _) in plan.stages[-1].loss.items()}


def test_weights() -> None:
    def sskd_weights(**options: Any) -> dict[str, float]:
        return weights_of(METHODS["sskd"](pair_of(), epochs=3, optim=Optim(), **options))

    assert sskd_weights() == {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0}
    assert sskd_weights(preset="arxiv") == {"ce": 0.1, "kd": 0.9, "tf": 10.0, "ss": 2.7}
    assert sskd_weights(preset="supplement", tf=0, kd=0.5) == {"ce": 0.1, "kd": 0.5, "tf": 0, "ss": 3.0}
    assert PRESETS["supplement"] == {"ce": 0.1, "kd": 0.9, "tf": 5.0, "ss": 3.0}
    assert weights_of(METHODS["ce"](pair_of(), epochs=3, optim=Optim())) == {"ce": 1.0}
    assert weights_of(METHODS["kd"](pair_of(), epochs=3, optim=Optim(), kd_weight=9.0)) == {"ce": 0.1, "kd": 9.0}


def test_stages() -> None:
    optim = Optim(lr=0.3)
    head, student = METHODS["sskd"](pair_of(), epochs=7, optim=optim, head_epochs=5, ratio_tf=0.5).stages
    assert (head.shared, head.epochs, head.optim.lr, head.optim.milestones) == (True, 5, 0.05, (0.5, 0.75))
    assert (student.shared, student.epochs, student.optim) == (False, 7, optim)
    tf, ss = cast(Transformed, student.loss["tf"][1]), cast(Similarity, student.loss["ss"][1])
    assert (tf.temperature, tf.ratio, ss.temperature, ss.ratio) == (4.0, 0.5, 0.5, 0.75)


def test_teacher_head_is_the_same_for_every_student() -> None:
    torch.manual_seed(1)
    first = METHODS["sskd"](pair_of(), epochs=1, optim=Optim()).modules["teacher_head"]
    torch.manual_seed(2)
    second = METHODS["sskd"](pair_of(), epochs=1, optim=Optim()).modules["teacher_head"]
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("method", "pair", "options", "message"),
    [
        ("kd", Pair(pair_of().student, None, info()), {}, "--teacher"),
        ("sskd", Pair(pair_of().student, None, info()), {}, "--teacher"),
        ("sskd", pair_of(None), {}, "linear"),
        ("sskd", pair_of((8, 2, 2)), {}, "linear"),
        ("sskd", pair_of(), {"preset": "relased"}, "released, arxiv, supplement"),
        ("sskd", pair_of(), {"ratio_tf": 1.5}, "ratio_tf"),
        ("sskd", pair_of(), {"ratio_ss": -0.1}, "ratio_ss"),
        ("sskd", pair_of(), {"ratio_ss": float("nan")}, "ratio_ss"),
    ],
)
def test_refused_plans(method: str, pair: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        METHODS[method](pair, epochs=1, optim=Optim(), **options)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("ce", {"temperature": 4}, "has no options"),
        ("kd", {"temprature": 4}, "Did you mean 'temperature'"),
        ("kd", {"temperature": "4"}, "takes a number"),
        ("kd", {"temperature": True}, "takes a number"),
        ("kd", {"standardised": 1}, "true or false"),
        ("sskd", {"tf": "much"}, "takes a number"),
        ("sskd", {"epochs": 3}, "epochs"),
    ],
)
def test_refused_options(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_options(METHODS[method], method, options)


def test_accepted_options() -> None:
    check_options(METHODS["ce"], "ce", {})
    check_options(METHODS["kd"], "kd", {"temperature": 2, "standardised": True})
    check_options(METHODS["sskd"], "sskd", {"tf": 1, "ss": 0.5, "preset": "arxiv", "head_epochs": 3})
    assert options_of(METHODS["kd"]) == {
        "ce_weight": 0.1,
        "kd_weight": 0.9,
        "temperature": 4.0,
        "standardised": False,
    }


# The contract between a method and the loop.


class Bank(Term):
    """A stand-in for a memory bank: pushes predictions from those remembered of drawn images, then remembers them.

    The rows are read in `draw`, before the step. Read and updated in one compiled step they would be wrong in the
    backward pass: its partitioner reads them a second time, after the update (pytorch/pytorch, pull request 197039).
    """

    student_taps = ("logits",)
    memory: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(size, CLASSES))

    def draw(self, generator: torch.Generator, index: Int64[Tensor, "B"]) -> Tensor:
        return self.memory[torch.randint(len(self.memory), (len(index), 2), generator=generator)]

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        logits = student["logits"][:, 0]
        with torch.no_grad():
            self.memory.index_copy_(0, batch.index, 0.5 * self.memory[batch.index] + 0.5 * logits.detach())
        return (logits[:, None] - batch.draws["bank"]).square().mean()


def bank(pair: Pair, *, epochs: int, optim: Optim) -> Plan:
    """A method of the tests."""
    loss: dict[str, tuple[float, Term]] = {"ce": (1.0, CrossEntropy()), "bank": (0.1, Bank(pair.data.size))}
    return Plan((Stage("train", loss, ("student",), epochs, optim),), Plain())


class Kept:
    """Keeper, cache and listener in memory."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state, self.saved, self.records = state, list[dict[str, Any]](), list[Record]()

    def load(self) -> dict[str, Any] | None:
        return self.state

    def save(self, state: dict[str, Any]) -> None:
        self.saved.append(copy.deepcopy(state))

    def log(self, record: Record) -> None:
        self.records.append(record)

    def find(self, stage: Stage) -> None:
        return None

    def keep(self, stage: Stage, states: dict[str, dict[str, Tensor]], record: Record) -> Path:
        return Path("nowhere")

    def progress(self, stage: str, epoch: int, epochs: int, share: float) -> None:
        pass

    def epoch(self, record: Record) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def build(method: Callable[..., Plan], precision: Any = "fp32", kept: Kept | None = None, epochs: int = 1) -> Trainer:
    torch.manual_seed(3)
    plain = Normalisation((0.5,) * 3, (0.2,) * 3, "test")
    teacher, student = (create_network("cifar_resnet8", tuple("abcd"), 3, plain) for _ in range(2))
    pair = Pair(student.shapes(SHAPE), teacher.shapes(SHAPE), info())
    plan = method(pair, epochs=epochs, optim=Optim(lr=0.05))
    pixels = torch.randint(256, (2 * SIZE, *SHAPE), dtype=torch.uint8)
    data, kept = Resident(pixels, info().labels), kept or Kept()
    split = Data(data, data, {"validation": data})
    execution = Execution(precision=precision)
    return Trainer(student, teacher, plan, split, Schedule(SIZE, 0), execution, kept, kept, kept)


def steps_of(trainer: Trainer) -> Iterator[tuple[StageRun, Step, list[nn.Parameter]]]:
    """Each stage, entered, with its step and what it trains."""
    for stage in trainer.plan.stages:
        run, step = StageRun(trainer, stage), Step(stage, trainer.student, trainer.teacher, trainer.execution)
        yield run, step, [p for module in run.enter() for p in module.parameters()]
        step.close()


def batch_at(run: StageRun, i: int) -> Batch:
    """The i-th batch. To be made when its turn has come: what a term draws may depend on the steps before."""
    index = torch.randperm(2 * SIZE, generator=generator_at(i))[:SIZE]
    return run._batch(index, generator_at(i), i)


def states(run: StageRun) -> dict[str, dict[str, Tensor]]:
    return copy.deepcopy({name: module.state_dict() for name, module in run.modules.items()})


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


every = pytest.mark.parametrize("method", [*METHODS.values(), bank], ids=[*METHODS, "bank"])


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
        before, optimizer = states(run), build_optimizer(parameters, run.stage.optim)
        for i in range(2):
            losses: Losses = step(batch_at(run, i))
            assert losses.terms.keys() == terms.keys()
            assert all(value.isfinite() for value in (losses.total, *losses.terms.values(), *losses.watched.values()))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(losses.total)
            assert all(p.grad is not None for p in parameters), "trained, but without a gradient"
            optimizer.step()
        after = states(run)
        assert equal(before["teacher"], after["teacher"])
        changed = {name for name in before if not equal(before[name], after[name])}
        buffers = {name for name, term in terms.items() if [*term.buffers()]}  # banks
        assert set(run.stage.trains) <= changed <= {*run.stage.trains, *buffers}
        for name in run.stage.trains:
            parts = dict(run.modules[name].named_parameters())
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
                    losses: Losses = call(batch_at(run, i))
                    grads = torch.autograd.grad(losses.total, parameters)
                    found += [losses.total, *losses.terms.values(), *losses.watched.values(), *grads]
                found += [value for state in states(run).values() for value in state.values()]
                results.append(found)
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)


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
