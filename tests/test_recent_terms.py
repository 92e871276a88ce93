"""WTTM, RLD, ReviewKD and CRLD against slow oracles: value, and gradients."""

from typing import Any

import pytest
import torch
from torch import nn

from sskd.losses import CRLDLoss, ReviewKDLoss, RLDLoss, WTTMLoss
from sskd.methods.reviewkd import hierarchical_context
from tests.oracles import crld, kd, reviewkd, rld, wttm
from tests.test_map_terms import planned
from tests.test_terms import batch_of, labels_of, normal, same
from tests.test_vector_terms import vectors


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_wttm(gamma: float, weighted: bool) -> None:
    student, teacher = normal(1, 5, 7).requires_grad_(), 3 * normal(2, 5, 7)
    same(WTTMLoss(gamma, weighted)(student, teacher), wttm.matching(student, teacher, gamma, weighted), [student])


@pytest.mark.parametrize("standardised", [False, True])
def test_rld(standardised: bool) -> None:
    """One label is the teacher's last choice, so that nothing lies below it; one its first."""
    student, teacher = normal(1, 5, 7).requires_grad_(), 2 * normal(2, 5, 7)
    labels = labels_of(5)
    labels[0], labels[1] = teacher[0].argmin(), teacher[1].argmax()
    s, t = (torch.stack([kd.z_score(row) for row in x]) if standardised else x for x in (student, teacher))
    scd, mcd = rld.refined(s, t, labels.tolist(), 4.0, 1.5)
    loss = RLDLoss(0.5, 3.0, 4.0, 1.5, standardised)
    same(loss(student, teacher, labels), 0.5 * scd + 3 * mcd, [student])


def test_rld_warms_up() -> None:
    student, teacher = vectors(4)
    terms = planned("rld", student, teacher, warm_up=4.0).stages[0].loss
    batch = batch_of(4, 1)
    for name in ("scd", "mcd"):
        term: Any = terms[name][1]
        values = [float(term(student, teacher, batch._replace(epoch=torch.tensor(e)))) for e in (0.0, 1.0, 3.0, 9.0)]
        assert [value / values[-1] for value in values] == pytest.approx([0.25, 0.5, 1.0, 1.0])


@pytest.mark.parametrize(("channels", "side"), [(3, 8), (4, 4), (5, 2), (6, 1)])
def test_hierarchical_context(channels: int, side: int) -> None:
    student, teacher = normal(1, 2, channels, side, side).requires_grad_(), normal(2, 2, channels, side, side)
    same(hierarchical_context(student, teacher), reviewkd.context(student, teacher), [student])


def test_reviewkd_fuses_from_the_deepest_stage_up() -> None:
    torch.manual_seed(0)
    shapes = [(3, 4, 4), (5, 2, 2), (6, 1, 1)], [(4, 8, 8), (7, 2, 2), (8, 1, 1)]
    loss = ReviewKDLoss(*shapes).double().train()
    student, teacher = (
        [normal(10 * j + i, 4, *shape) for i, shape in enumerate(side)] for j, side in enumerate(shapes)
    )
    student = [maps.requires_grad_() for maps in student]
    slow, deeper = torch.zeros((), dtype=torch.float64), None
    for i, (fusion, s, t) in enumerate(zip(loss.abf, student[::-1], teacher[::-1], strict=True)):
        parts: Any = fusion
        attention = (parts.att_conv[0].weight, parts.att_conv[0].bias) if i else None
        deeper = reviewkd.fused(s, deeper, parts.conv1[0].weight, attention)
        made = reviewkd.normalised(nn.functional.conv2d(deeper, parts.conv2[0].weight, padding=1))
        slow = slow + reviewkd.context(reviewkd.enlarged(made, t.shape[-1]), t)
    vector = [*student[:2], student[2][:, :, 0, 0]]  # the classifier's input, as it is
    same(loss(vector, [*teacher[:2], teacher[2][:, :, 0, 0]]), slow, student)


def test_crld() -> None:
    sides = [scale * normal(i, 6, 7) for i, scale in enumerate((1, 1, 3, 1))]
    for logits in sides[:2]:
        logits.requires_grad_()
    loss = CRLDLoss(weak_threshold=0.7, strong_threshold=0.4)
    sure = [(x.softmax(1).amax(1) >= low).sum().item() for x, low in zip(sides[2:], (0.7, 0.4), strict=True)]
    assert all(0 < count < 6 for count in sure), "some images, not all"
    slow = crld.consistency((sides[0], sides[1]), (sides[2], sides[3]), (2.0, 0.5), (0.7, 0.4), 4.0)
    same(loss(*sides), slow, sides[:2])
