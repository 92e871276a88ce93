"""What analyses measure, against slow oracles written from the definitions."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from sskd.analyses.calibration import calibration, per_class
from sskd.analyses.cka import MinibatchCKA, gram, hsic
from sskd.analyses.embedding import embedding
from sskd.analyses.linear import fit, neighbours, voted
from sskd.analyses.transferred import Levels


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_hsic(x: Tensor, y: Tensor) -> float:
    """Song et al. 2012: the mean over quadruples of different images of k_ij (l_ij + l_qr - 2 l_iq)."""
    k, l = ((side.flatten(1) @ side.flatten(1).T).tolist() for side in (x, y))  # noqa: E741
    total = 0.0
    quadruples = list(itertools.permutations(range(len(x)), 4))
    for i, j, q, r in quadruples:
        total += k[i][j] * (l[i][j] + l[q][r] - 2 * l[i][q])
    return total / len(quadruples)


def test_hsic_is_the_unbiased_estimator() -> None:
    x, y = normal(0, 7, 3, 2) + 5, normal(1, 7, 4) - 2  # means far from 0: centring must change nothing
    found = hsic(gram(x)[None], gram(y)[None])
    assert found.shape == (1, 1) and float(found) == pytest.approx(slow_hsic(x, y), rel=1e-10)


def test_minibatch_cka_is_the_ratio_of_sums() -> None:
    ones, others = ({"a": normal(i, 18, 5), "b": normal(i + 1, 18, 2, 2)} for i in (0, 10))
    cka = MinibatchCKA(("a", "b"), ("b", "a"))
    parts = [slice(start, start + 6) for start in (0, 6, 12)]
    for part in parts:
        cka.update({n: v[part] for n, v in ones.items()}, {n: v[part] for n, v in others.items()})
    found = cka.read()
    for i, j in itertools.product(range(2), range(2)):
        one, other = ones[("a", "b")[i]], others[("b", "a")[j]]
        cross, own, theirs = (
            sum(slow_hsic(x[part], y[part]) for part in parts) for x, y in ((one, other), (one, one), (other, other))
        )
        assert found[i][j] == pytest.approx(cross / math.sqrt(own * theirs), rel=1e-9)


def test_cka_of_turned_scaled_and_of_constant_features() -> None:
    x = normal(0, 64, 6)
    turn = torch.linalg.qr(normal(1, 6, 6)).Q
    cka = MinibatchCKA(("x",), ("turned", "alike", "unrelated"))
    cka.update({"x": x}, {"turned": 3 * x @ turn + 1, "alike": torch.ones(64, 2), "unrelated": normal(2, 64, 6)})
    turned, alike, unrelated = cka.read()[0]
    assert turned == pytest.approx(1) and alike is None
    assert unrelated is not None and abs(unrelated) < 0.1


def test_calibration_by_hand() -> None:
    # four images: sure 0.9 (right), 0.95 (wrong), 1.0 (right), 0.6 (right); with 10 bins the first is in (0.8, 0.9]
    sure = torch.tensor([0.9, 0.95, 1.0, 0.6], dtype=torch.float64)
    probabilities, labels = torch.stack([sure, 1 - sure], 1), torch.tensor([0, 1, 0, 0])
    found = calibration(probabilities, labels, bins=10)
    assert [one["count"] for one in found["bins"]] == [0, 0, 0, 0, 0, 1, 0, 0, 1, 2]
    assert found["bins"][9] == {"confidence": pytest.approx(0.975), "accuracy": 0.5, "count": 2}
    assert found["bins"][0] == {"confidence": None, "accuracy": None, "count": 0}
    assert found["ece"] == pytest.approx((0.4 + 0.1 + 2 * 0.475) / 4)


def test_calibration_against_a_loop() -> None:
    probabilities, labels = (3 * normal(0, 200, 5)).softmax(1), torch.arange(200) % 5
    rows = [(max(row), row.index(max(row)) == label) for row, label in zip(probabilities.tolist(), labels, strict=True)]
    expected = 0.0
    for low in range(15):
        inside = [(sure, right) for sure, right in rows if low / 15 < sure <= (low + 1) / 15]
        expected += abs(sum(sure for sure, _ in inside) - sum(bool(right) for _, right in inside)) / 200
    assert calibration(probabilities, labels)["ece"] == pytest.approx(expected)


def test_accuracy_of_each_class() -> None:
    found = per_class(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0]), ("a", "b", "c"))
    assert [(one["class"], one["images"], one["top1"]) for one in found] == [
        ("a", 3, 2 / 3),
        ("b", 1, 1),
        ("c", 0, None),
    ]


def test_error_levels_are_counted_and_selected_within_a_batch() -> None:
    levels, expected = Levels(0.5), np.zeros(20, dtype=int)
    for seed in range(3):
        logits, answer = normal(seed, 30, 20), torch.arange(30) % 20
        level, kept = levels.update(logits, answer)
        ranks = [sum(value > row[right] for value in row) for row, right in zip(logits.tolist(), answer, strict=True)]
        assert level.tolist() == ranks
        right, order = ranks.count(0), sorted(range(30), key=lambda i: ranks[i])
        assert sorted(kept.nonzero().flatten().tolist()) == sorted(order[: right + int(0.5 * (30 - right))])
        expected += np.bincount(ranks, minlength=20)
    found, selected = levels.histogram(), levels.selection()
    assert found is not None and selected is not None
    assert found["edges"] == [0, 1, 2, 3, 5, 9, 17, 20]
    assert found["counts"] == [int(expected[a:b].sum()) for a, b in itertools.pairwise(found["edges"])]
    assert selected["rows"] == 90 and selected["wrong"] == pytest.approx(1 - expected[0] / 90)
    assert Levels(None).histogram() is None


def test_linear_is_the_minimum_that_another_solver_finds() -> None:
    features, labels, penalty = normal(0, 120, 6), torch.arange(120) % 3, 0.03
    features[:, 0] += labels
    ours = fit(features, labels, 3, penalty)
    theirs = LogisticRegression(C=1 / (120 * penalty), tol=1e-10, max_iter=2000).fit(features.numpy(), labels.numpy())
    assert np.allclose(ours.weight.numpy(), theirs.coef_, atol=1e-5)
    same = fit(features, labels, 3, penalty, start=fit(features, labels, 3, 1.0))
    assert torch.allclose(same.weight, ours.weight, atol=1e-5)
    assert ours.top1(features, labels) == pytest.approx(theirs.score(features.numpy(), labels.numpy()))


@pytest.mark.parametrize("k", [1, 4, 9])
def test_neighbours_vote(k: int) -> None:
    stored, labels, queries = normal(0, 40, 5), torch.arange(40) % 4, normal(1, 25, 5)
    found = voted(neighbours(stored, labels, queries, 9), k, 4)
    for query, answer in zip(queries, found.tolist(), strict=True):
        cosines = [float(query @ one / query.norm() / one.norm()) for one in stored]
        near = [int(labels[i]) for i in sorted(range(40), key=lambda i: -cosines[i])[:k]]
        most = max(near.count(label) for label in near)
        assert answer == next(label for label in near if near.count(label) == most)


def test_embedding_is_bounded_and_repeatable() -> None:
    labels = torch.arange(60) % 12
    names = tuple(map(str, range(12)))
    both = {"student": normal(0, 60, 4), "teacher": normal(1, 60, 8)}
    found = embedding(both, labels, names, 30, 0)
    assert found is not None and found == embedding(both, labels, names, 30, 0)
    points = found["points"]
    assert len(points) == 60 and len({one["class"] for one in points}) <= 10
    assert [one["class"] for one in points[:30]] == [one["class"] for one in points[30:]]
    assert all(math.isfinite(one["x"]) and math.isfinite(one["y"]) for one in points)
    assert embedding(both, labels[:5], names, 30, 0) is None
