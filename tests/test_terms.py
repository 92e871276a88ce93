"""Every term against a slow oracle written from the paper."""

from collections.abc import Sequence
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from sskd.data.source import DataInfo
from sskd.methods.parts import CrossEntropy, SoftTargets
from sskd.methods.plan import Outputs
from sskd.methods.sskd import HeadTask, Similarity, Transformed
from sskd.views.contrastive import Contrastive
from sskd.views.pretext import Batch
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
