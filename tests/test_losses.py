"""The public losses: their examples run, the engine's terms call them, and bad input is named."""

import doctest
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sskd.losses
from sskd.errors import UserError
from sskd.losses import (
    ABLoss,
    ATLoss,
    CRDLoss,
    DISTLoss,
    DKDLoss,
    FitNetLoss,
    FSPLoss,
    IRGLoss,
    KDLoss,
    ProjectionHead,
    RKDLoss,
    SPLoss,
    SSKDHeadLoss,
    SSKDLoss,
    VIDLoss,
    rotated_views,
)
from sskd.methods.parts import LossTerm
from sskd.methods.plan import Plan
from tests.oracles import sskd as slow
from tests.test_map_terms import outputs, planned
from tests.test_terms import normal, same


@pytest.mark.parametrize("name", sskd.losses.__all__)
def test_examples_run(name: str) -> None:
    torch.manual_seed(0)
    public = getattr(sskd.losses, name)
    globs = {"torch": torch, **{other: getattr(sskd.losses, other) for other in sskd.losses.__all__}}
    tests = doctest.DocTestFinder(recurse=False).find(public, name, globs=globs)
    examples = sum(len(test.examples) for test in tests)
    assert examples or name in ("Paraphraser", "Translator"), "every public loss shows how it is called"
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0


def test_sskd_is_the_papers_sum_of_terms() -> None:
    student, teacher = normal(1, 5, 4, 7).requires_grad_(), normal(2, 5, 4, 7)
    heads = normal(3, 5, 4, 6).requires_grad_(), normal(4, 5, 4, 9)
    labels = torch.tensor([0, 3, 6, 2, 2])
    total, terms = SSKDLoss(ratio_tf=0.5)(student, heads[0], teacher, heads[1], labels)
    expected = {
        "tf": slow.transformed(teacher, student, labels.tolist(), 4.0, 0.5)[0],
        "ss": slow.similarity(heads[1], heads[0], 0.5, 0.75)[0],
        "kd": KDLoss(4.0)(student[:, 0], teacher[:, 0]),
        "ce": nn.functional.cross_entropy(student[:, 0], labels),
    }
    for name, value in expected.items():
        same(terms[name], value, [heads[0] if name == "ss" else student])
    weights = {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0}
    same(total, torch.stack([weights[name] * value for name, value in expected.items()]).sum(), [student, heads[0]])
    arxiv, _ = SSKDLoss(preset="arxiv", ss=0.0)(student, heads[0], teacher, heads[1], labels)
    expected["tf"] = slow.transformed(teacher, student, labels.tolist(), 4.0, 1.0)[0]
    weights = {"ce": 0.1, "kd": 0.9, "tf": 10.0}
    same(arxiv, torch.stack([weight * expected[name] for name, weight in weights.items()]).sum(), [student])


def test_head_loss() -> None:
    z = normal(1, 5, 4, 6).requires_grad_()
    same(SSKDHeadLoss()(z), slow.head_task(z), [z])


def test_projection_head_has_published_keys() -> None:
    assert [*ProjectionHead(8).state_dict()] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_rotated_views() -> None:
    image = torch.arange(4.0).view(1, 1, 2, 2)
    views = rotated_views(image)[0, :, 0]
    assert views.tolist() == [[[0, 1], [2, 3]], [[1, 3], [0, 2]], [[3, 2], [1, 0]], [[2, 0], [3, 1]]]
    crops = torch.rand(2, 4, 3, 5, 5)
    assert torch.equal(rotated_views(crops)[:, 2], torch.rot90(crops[:, 2], 2, (-2, -1)))


def test_crd_remembers_in_training_alone() -> None:
    loss = CRDLoss(4, 6, torch.arange(20) % 4, width=8, negatives=5)
    before, index = loss.memory_student.clone(), torch.tensor([3, 7])
    with torch.no_grad():
        loss(torch.rand(2, 4), torch.rand(2, 6), index)
    loss.eval()(torch.rand(2, 4), torch.rand(2, 6), index)
    assert torch.equal(loss.memory_student, before)
    value = loss.train()(torch.rand(2, 4), torch.rand(2, 6), index)
    value.backward()
    changed = (loss.memory_student != before).any(1).nonzero()[:, 0]
    assert changed.tolist() == [3, 7] and loss.embed_s.weight.grad is not None
    with pytest.raises(UserError, match="all 5 labels are of one class"):
        CRDLoss(4, 6, torch.zeros(5, dtype=torch.int64))


def test_checkpoints_of_terms_without_a_loss_are_read() -> None:
    """Version 0.1 kept what a method owns beside the term, not in a loss."""
    student, teacher = outputs(((4, 4, 4), (5, 3, 3), (6, 2, 2)), 1), outputs(((5, 4, 4), (4, 3, 3), (7, 2, 2)), 50)
    for method in ("fitnet", "cc", "vid", "ab", "crd"):
        plan: Plan = planned(method, student, teacher)
        terms = [term for stage in plan.stages for _, term in stage.loss.values()]
        term = next(term for term in terms if isinstance(term, LossTerm) and [*term.parameters()])
        old = {key.removeprefix("loss."): value + 1 for key, value in term.state_dict().items()}
        term.load_state_dict(old)
        assert all(torch.equal(value, old[key.removeprefix("loss.")]) for key, value in term.state_dict().items())


def of(*shape: int) -> Tensor:
    return torch.zeros(shape)


LABELS = torch.zeros(2, dtype=torch.int64)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no views": (
        lambda: SSKDLoss()(of(2, 10), of(2, 8), of(2, 10), of(2, 8), LABELS),
        r"several views, \[B, V, D\] .* got \[2, 10\]\. Make the views with rotated_views",
    ),
    "one view": (lambda: SSKDHeadLoss()(of(2, 1, 8)), r"got \[2, 1, 8\]"),
    "one image": (lambda: SSKDHeadLoss()(of(1, 4, 8)), "a batch of one image has one answer"),
    "unequal classes": (
        lambda: SSKDLoss()(of(2, 4, 10), of(2, 4, 8), of(2, 4, 1000), of(2, 4, 8), LABELS),
        r"student's logits are \[2, 4, 10\] and the teacher's \[2, 4, 1000\]: other classes",
    ),
    "embeddings of other images": (
        lambda: SSKDLoss()(of(2, 4, 10), of(2, 4, 8), of(2, 4, 10), of(3, 4, 8), LABELS),
        r"embeddings of \[2, 4\] \(student\) and \[3, 4\] \(teacher\)",
    ),
    "preset": (lambda: SSKDLoss(preset="best"), "preset is one of released, arxiv, supplement; got 'best'"),
    "ratio": (lambda: SSKDLoss(ratio_ss=2), "ratio_ss is the share of wrong rows to transfer, from 0 to 1; got 2"),
    "one row": (lambda: KDLoss()(of(10), of(10)), r"Logits are \[B, K\].*student's are \[10\]"),
    "temperature": (lambda: KDLoss(0), "temperature must be above 0; got 0"),
    "dkd temperature": (lambda: DKDLoss(temperature=-1), "temperature must be above 0; got -1"),
    "margin": (lambda: ABLoss([(3, 4, 4)], [(3, 4, 4)], margin=-1), "margin must be above 0"),
    "shapes": (lambda: ABLoss([(3, 4, 4)], []), "as many stages of the student as of the teacher.*got 1 and 0"),
    "labels": (lambda: DKDLoss()(of(4, 10), of(4, 10), LABELS), r"each of the 4 images, \[B\]; got \[2\]"),
    "mixed labels": (lambda: DKDLoss()(of(2, 9), of(2, 9), of(2, 9)), r"got \[2, 9\]. Mixed or one-hot"),
    "float labels": (
        lambda: DKDLoss()(of(2, 9), of(2, 9), of(2)),
        "class numbers, such as torch.int64; got torch.float32",
    ),
    "maps in a list": (lambda: SPLoss()([of(2, 8)], [of(2, 8)]), "takes one tensor of each network"),  # type: ignore[arg-type]
    "kd": (lambda: KDLoss()(of(2, 10), of(2, 100)), "other classes"),
    "kd images": (lambda: KDLoss()(of(2, 10), of(3, 10)), "other images or views"),
    "dkd": (lambda: DKDLoss()(of(2, 10), of(2, 9), LABELS), "other classes"),
    "dist": (lambda: DISTLoss()(of(2, 10), of(2, 9)), "other classes"),
    "one map": (lambda: ATLoss()(of(2, 3, 4, 4), of(2, 3, 4, 4)), "give a list of maps"),
    "stages": (lambda: ATLoss()([of(2, 3, 4, 4)], [of(2, 3, 4, 4)] * 2), "1 maps of the student and 2 of the teacher"),
    "tokens": (lambda: ATLoss()([of(2, 16, 8)], [of(2, 3, 4, 4)]), r"student's values are \[2, 16, 8\]"),
    "maps of other images": (
        lambda: FitNetLoss((3, 4, 4), (3, 4, 4))(of(2, 3, 4, 4), of(4, 3, 4, 4)),
        "2 and 4 images",
    ),
    "channels": (lambda: FSPLoss()([of(2, 3, 4, 4)] * 2, [of(2, 5, 4, 4)] * 2), "has 3 and the teacher's 5"),
    "one stage": (lambda: FSPLoss()([of(2, 3, 4, 4)], [of(2, 3, 4, 4)]), "give two stages or more"),
    "irg": (lambda: IRGLoss()((of(2, 9), of(2, 8), []), (of(2, 9), of(2, 8), [])), "given 0 maps"),
    "sp": (lambda: SPLoss()(of(2, 8), of(3, 8)), "2 and 3 images"),
    "rkd": (lambda: RKDLoss()(of(2, 8), of(3, 8)), "2 and 3 images"),
    "vid": (lambda: VIDLoss([3], [3])([of(2, 3, 4, 4)], []), "0 of the teacher"),
    "ab": (lambda: ABLoss([(3, 4, 4)], [(3, 4, 4)])([of(2, 3)], [of(2, 3)]), "Feature maps are"),
    "no index": (lambda: CRDLoss(8, 8, torch.arange(9))(of(2, 8), of(2, 8), None), "give `index`"),  # type: ignore[arg-type]
    "strange index": (
        lambda: CRDLoss(8, 8, torch.arange(9))(of(2, 8), of(2, 8), torch.tensor([4, 9])),
        "images 0 to 8, by the labels that it was built with; got the numbers 4 to 9",
    ),
    "oblong": (lambda: rotated_views(of(2, 3, 4, 5)), r"got \[2, 4, 3, 4, 5\]|got \[2, 3, 4, 5\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(UserError, match=message):
        call()
