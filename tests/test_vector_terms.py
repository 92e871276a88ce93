"""Terms on embeddings and predictions against slow oracles: value and gradients, of terms' parameters too."""

import math
from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sskd.methods.crd import Banked, Queue
from sskd.methods.crd_loss import ContrastiveMemory, CRDLoss, CRDQueueLoss
from sskd.methods.hsakd import AllViews, JointTask, Mimicry
from sskd.methods.one import NativeEnsemble
from sskd.methods.plan import Term
from sskd.views.pretext import Batch
from tests.oracles import cc, crd, dist, dkd, hsakd, kd, one, pkt, rkd
from tests.test_map_terms import leaves, planned, term_of
from tests.test_terms import batch_of, labels_of, normal, same

Values = dict[str, Tensor]
SIZES = (2, 3, 5)


def vectors(size: int, views: int = 1) -> tuple[Values, Values]:
    """Embeddings of unequal widths and logits of seven classes."""
    student = {"pooled": normal(1, size, views, 5), "logits": normal(2, size, views, 7)}
    return student, {"pooled": normal(3, size, views, 8), "logits": 2 * normal(4, size, views, 7)}


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["distance", "angle", "pkt", "cc"])
def test_relations(name: str, size: int, views: int) -> None:
    student, teacher = vectors(size, views)
    method = name if name in ("pkt", "cc") else "rkd"
    term = term_of(planned(method, student, teacher), name)
    inputs = leaves(term, student)
    s, t = student["pooled"][:, 0], teacher["pooled"][:, 0]
    if name == "cc":
        embed_s, embed_t = (dict(term.named_parameters())[f"loss.embed_{side}.weight"] for side in "st")
        bias_s, bias_t = (dict(term.named_parameters())[f"loss.embed_{side}.bias"] for side in "st")
        slow = cc.correlation(s @ embed_s.T + bias_s, t @ embed_t.T + bias_t)
    else:
        slow = {"distance": rkd.distance, "angle": rkd.angle, "pkt": pkt.probabilistic}[name](s, t)
    same(term(student, teacher, batch_of(size, views)), slow, inputs)


@pytest.mark.parametrize("method", ["rkd", "pkt", "cc"])
@pytest.mark.parametrize("case", ["one image", "equal images", "zeros"])
def test_relations_without_spread_are_finite(method: str, case: str) -> None:
    student, teacher = vectors(1 if case == "one image" else 4)
    if case != "one image":
        student["pooled"] = (student["pooled"][:1] * (case == "equal images")).expand(4, -1, -1).clone()
    loss_terms = planned(method, student, teacher).stages[-1].loss
    for name, (_, term) in loss_terms.items():
        inputs = leaves(term, student)
        loss = term(student, teacher, batch_of(len(student["pooled"]), 1))
        grads = torch.autograd.grad(loss, inputs)
        assert loss.isfinite() and all(grad.isfinite().all() for grad in grads), name


@pytest.mark.parametrize("size", (1, 2, 5))
@pytest.mark.parametrize("standardised", [False, True])
def test_dkd(size: int, standardised: bool) -> None:
    student, teacher = vectors(size, 2)
    options = {"temperature": 3.0, "warm_up": 4.0, "standardised": standardised}
    loss = planned("dkd", student, teacher, alpha=0.5, beta=6.0, **options).stages[0].loss
    student["logits"].requires_grad_()
    s, t = (side["logits"][:, 0] for side in (student, teacher))
    if standardised:
        s, t = (torch.stack([kd.z_score(row) for row in side]) for side in (s, t))
    slow = dkd.decoupled(s, t, labels_of(size).tolist(), 0.5, 6.0, 3.0)
    for epoch, factor in ((0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)):
        batch = batch_of(size, 2)._replace(epoch=torch.tensor(float(epoch)))
        ours = sum(
            (loss[name][0] * loss[name][1](student, teacher, batch) for name in ("tckd", "nckd")), torch.zeros(())
        )
        same(ours, factor * slow, [student["logits"]])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("standardised", [False, True])
def test_dist(size: int, standardised: bool) -> None:
    student, teacher = vectors(size, 2)
    plan = planned("dist", student, teacher, temperature=2.5, standardised=standardised)
    student["logits"].requires_grad_()
    s, t = (side["logits"][:, 0] for side in (student, teacher))
    if standardised:
        s, t = (torch.stack([kd.z_score(row) for row in side]) for side in (s, t))
    for name, slow in zip(("inter", "intra"), dist.relations(s, t, 2.5), strict=True):
        same(term_of(plan, name)(student, teacher, batch_of(size, 2)), slow, [student["logits"]])


N, CLASSES = 20, 4


class Memory:
    """A bank of twenty images of four classes, of which one has eight images, and a batch of three of them."""

    def __init__(self, negatives: int) -> None:
        self.labels = torch.tensor([0] * 8 + [1] * 4 + [2] * 4 + [3] * 4)
        torch.manual_seed(0)
        self.term = Banked(CRDLoss(5, 8, self.labels, 6, negatives, 0.1, 0.3)).double()
        self.index = torch.tensor([2, 9, 19])
        self.student, self.teacher = vectors(3)
        self.inputs = [self.student["pooled"].requires_grad_(), *self.term.parameters()]

    def batch(self, seed: int) -> Batch:
        drawn = {"crd": self.term.draw(torch.Generator().manual_seed(seed), self.index)}
        return batch_of(3, 1)._replace(labels=self.labels[self.index], index=self.index, draws=drawn)

    def negatives(self, batch: Batch) -> list[list[int]]:
        """Row by row: the first of the drawn rows that are of other classes."""
        rows = batch.draws["crd"]["rows"].tolist()
        others = [[row for row in rows if self.labels[row] != label] for label in batch.labels]
        return [row[: self.term.loss.negatives] for row in others]


def embedded(loss: ContrastiveMemory, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> list[Tensor]:
    pairs = ((loss.embed_s, student), (loss.embed_t, teacher))
    raw = [values["pooled"][:, 0] @ embed.weight.T + embed.bias for embed, values in pairs]
    return [torch.stack([row / (row * row).sum().sqrt() for row in rows]) for rows in raw]


@pytest.mark.parametrize("negatives", [1, 5, 12, 13, 40])
def test_crd(negatives: int) -> None:
    """Two steps: the second with the first's Z and memories. Of the largest class only 12 images are of others."""
    memory, z = Memory(negatives), (None, None)
    for step in range(2):
        batch, term = memory.batch(step), memory.term
        bank_of = term.loss
        chosen, banks = memory.negatives(batch), (bank_of.memory_student.clone(), bank_of.memory_teacher.clone())
        counts = [len({*row}) for row in chosen]
        assert counts == [min(negatives, 12), min(negatives, 16), min(negatives, 16)], "distinct, or all there are"
        assert len({*batch.draws["crd"]["rows"].tolist()}) == len(batch.draws["crd"]["rows"])
        s, t = embedded(bank_of, memory.student, memory.teacher)
        slow, *z = crd.contrast(s, t, *banks, memory.index.tolist(), chosen, 0.1, N, *z)  # type: ignore[assignment]
        loss, seen = term.remembering(memory.student, memory.teacher, batch)
        same(loss, slow, memory.inputs)
        assert torch.equal(bank_of.memory_student, banks[0]) and torch.equal(bank_of.memory_teacher, banks[1])
        with torch.no_grad():
            term.update({name: value.detach() for name, value in seen.items()}, batch)
        for bank, before, new in ((bank_of.memory_student, banks[0], s), (bank_of.memory_teacher, banks[1], t)):
            torch.testing.assert_close(bank, crd.updated(before, new, memory.index.tolist(), 0.3))
        torch.testing.assert_close(bank_of.normaliser.tolist(), [float(one or 0) for one in z])


def test_crd_draws_evenly_and_from_its_generator() -> None:
    memory = Memory(5)
    rows = [memory.batch(seed).draws["crd"]["rows"].tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]
    counts = torch.zeros(N)
    for seed in range(2000):
        counts[memory.negatives(memory.batch(seed))[1]] += 1  # of an image of class 1
    expected = torch.where(memory.labels == 1, 0.0, 2000 * 5 / 16)
    assert (counts - expected).abs().max() < 6 * (2000 * 5 / 16) ** 0.5


@pytest.mark.parametrize("rows", [3, 8])
def test_crd_queue(rows: int) -> None:
    """First in, first out; the negatives are the rows of other classes, the positive the other network's embedding."""
    torch.manual_seed(0)
    term = Queue(CRDQueueLoss(5, 8, rows, 6, 0.1)).double()
    queue = term.loss
    labels = [-1] * rows
    student_rows, teacher_rows, z = queue.memory_student.clone(), queue.memory_teacher.clone(), (None, None)
    for step in range(4):
        student, teacher = ({"pooled": normal(10 * step + i, 2, 1, width)} for i, width in enumerate((5, 8)))
        batch = batch_of(2, 1)._replace(labels=torch.tensor([step % 2, 2]))
        inputs = [student["pooled"].requires_grad_(), *term.parameters()]
        s, t = embedded(queue, student, teacher)
        banks: Any = [torch.cat([bank, new.detach()]) for bank, new in ((student_rows, s), (teacher_rows, t))]
        chosen = [[row for row in range(rows) if labels[row] != label] for label in batch.labels.tolist()]
        slow, *z = crd.contrast(s, t, *banks, [rows, rows + 1], chosen, 0.1, rows, *z)  # type: ignore[assignment, call-arg]
        loss, seen = term.remembering(student, teacher, batch)
        same(loss, slow, inputs)
        with torch.no_grad():
            term.update({name: value.detach() for name, value in seen.items()}, batch)
        for i in range(2):
            place = (2 * step + i) % rows
            student_rows[place], teacher_rows[place], labels[place] = s[i].detach(), t[i].detach(), int(batch.labels[i])
        torch.testing.assert_close((queue.memory_student, queue.memory_teacher), (student_rows, teacher_rows))
        assert queue.labels.tolist() == labels and int(queue.place) == 2 * (step + 1) % rows


def test_crd_queue_shorter_than_a_batch() -> None:
    term = Queue(CRDQueueLoss(5, 8, 3, 6, 0.1)).double()
    student, teacher = vectors(5)
    loss, seen = term.remembering(student, teacher, batch_of(5, 1))
    term.update({name: value.detach() for name, value in seen.items()}, batch_of(5, 1))
    assert loss.isfinite() and term.loss.labels.tolist() == labels_of(5)[:3].tolist() and int(term.loss.place) == 0


def linear_tail(channels: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))


@pytest.mark.parametrize(("epoch", "ramp_up", "share"), [(0, 80, 0.006737946999085467), (20, 80, None), (80, 80, 1)])
def test_one_ramps_up(epoch: int, ramp_up: float, share: float | None) -> None:
    assert one.ramp(epoch, ramp_up) == pytest.approx(share or math.exp(-5 * 0.75**2), rel=1e-12)


@pytest.mark.parametrize(("branches", "epoch", "ramp_up"), [(1, 0, 80), (2, 31, 80), (2, 3, 2), (2, 0, 0)])
def test_one(branches: int, epoch: int, ramp_up: float) -> None:
    torch.manual_seed(0)
    term = NativeEnsemble("stage2", [linear_tail(3, 7) for _ in range(branches)], 3, 2.0, ramp_up).double().train()
    batch = batch_of(4, 2)._replace(epoch=torch.tensor(float(epoch)))
    share = one.ramp(epoch, ramp_up)
    student = {"stage2": normal(1, 4, 2, 3, 2, 2), "logits": normal(2, 4, 2, 7)}
    inputs = leaves(cast(Term, term), student)
    shared, labels = student["stage2"][:, 0], labels_of(4).tolist()
    logits = [student["logits"][:, 0], *(branch(shared) for branch in term.branches)]
    linear, affine = cast(Any, term.gate[0]), cast(Any, term.gate[1])
    raw = shared.mean((2, 3)) @ linear.weight.T + linear.bias
    norm = (raw - raw.mean(0)) / (raw.var(0, unbiased=False) + 1e-5).sqrt() * affine.weight + affine.bias
    gate = torch.stack([row.exp() / row.exp().sum() for row in norm.clamp(min=0)])
    slow = one.losses(logits, gate, labels, 2.0, share) - F.cross_entropy(logits[0], torch.tensor(labels))
    weights = [one_ for one_ in inputs if one_ is not linear.bias]  # batch norm undoes it
    same(term(student, {}, batch), slow, weights)
    right = (one.ensemble(logits, gate).argmax(1) == labels_of(4)).double().mean()
    assert term.watch(student, {}, batch_of(4, 2))["ensemble_top1"].item() == pytest.approx(right.item())


def test_hsakd() -> None:
    torch.manual_seed(0)
    make = {tap: linear_tail(3, 28) for tap in ("stage1", "stage2")}
    teacher_branches, branches = (
        nn.ModuleDict(make).double(),
        nn.ModuleDict({k: linear_tail(3, 28) for k in make}).double(),
    )
    student, teacher = ({tap: normal(seed + i, 3, 4, 3, 2, 2) for i, tap in enumerate(make)} for seed in (1, 9))
    student["logits"], teacher["logits"] = normal(5, 3, 4, 7), normal(6, 3, 4, 7)
    labels, batch = labels_of(3).tolist(), batch_of(3, 4)._replace(asked=torch.arange(4).expand(3, -1))

    def branched(modules: nn.ModuleDict, values: Values) -> list[Tensor]:
        return [modules[tap](values[tap].flatten(0, 1)).unflatten(0, (3, 4)) for tap in make]

    task = JointTask(("stage1", "stage2"), teacher_branches)
    logits = branched(teacher_branches, teacher)
    slow = torch.stack([hsakd.task(one_, labels) for one_ in logits]).sum()
    same(task({}, teacher, batch), slow, [*teacher_branches.parameters()])
    joint = torch.tensor([[4 * label + k for k in range(4)] for label in labels])
    share = (logits[-1].argmax(2) == joint).double().mean().item()
    assert task.watch({}, teacher, batch)["joint_accuracy"].item() == pytest.approx(share)
    term: Any = Mimicry((("stage1", "stage1"), ("stage2", "stage2")), branches, teacher_branches, 3.0)
    inputs = leaves(term, student)
    assert len(inputs) == 2 + 4, "the teacher's branches are borrowed"
    slow = hsakd.mimicry(branched(branches, student), [one_.detach() for one_ in logits], 3.0)
    same(term(student, teacher, batch), slow, inputs)
    views = AllViews(3.0)
    slow = hsakd.mimicry([student["logits"].requires_grad_()], [teacher["logits"]], 3.0)
    same(views(student, teacher, batch), slow, [student["logits"]])
