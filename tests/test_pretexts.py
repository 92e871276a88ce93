"""The pretexts beside the contrastive one, and the terms that ask them, against slow references."""

import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sskd.data.feed import Share
from sskd.data.source import DataInfo
from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.plan import Optim, Pair
from sskd.methods.sskd import HeadTask, Similarity, plan
from sskd.train.optim import build_optimizer
from sskd.views import PRETEXTS
from sskd.views.exemplar import GAIN, Exemplar, Numbers
from sskd.views.find import pretext_of
from sskd.views.jigsaw import ORDERS, Jigsaw
from sskd.views.pretext import Batch, Pretext
from sskd.views.rotation import Rotation
from tests.oracles import pretexts
from tests.oracles.ce import cross_entropy
from tests.trainers import Kept, build

N, DIM = 11, 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def facts(channels: int = 3, side: int = 8, **more: Any) -> DataInfo:
    labels = torch.arange(N) % 3
    return DataInfo("few", N, tuple("abc"), labels, (0.5,), (0.2,), (channels, side, side), **more)


def planned(data: DataInfo, **options: Any) -> Any:
    shapes = {"pooled": (DIM,), "logits": (3,)}
    return plan(Pair(shapes, shapes, data), epochs=1, optim=Optim(), **options)


@pytest.mark.parametrize("shape", [(3, 4, 3, 8, 8), (2, 4, 1, 7, 7), (2, 3, 3, 5, 6), (1, 4, 3, 2, 3)])
def test_jigsaw_views(shape: tuple[int, ...]) -> None:
    crops = torch.rand(shape, generator=seeded(0))
    kept, generator = crops.clone(), seeded(7)
    views, asked = Jigsaw().transform(crops, generator)
    drawn = torch.randint(24, (shape[0], shape[1] - 1), generator=seeded(7))
    assert asked[:, 0].eq(0).all() and torch.equal(asked[:, 1:], drawn) and torch.equal(crops, kept)
    for i, k in np.ndindex(*asked.shape):
        np.testing.assert_array_equal(views[i, k], pretexts.puzzled(crops[i, k].numpy(), int(asked[i, k])))
    for rank in range(shape[0]):  # each image by a process of its own
        share = Share(rank, shape[0])
        mine, said = Jigsaw().transform(share.of(crops), seeded(7), share)
        assert torch.equal(mine, share.of(views)) and torch.equal(said, share.of(asked))


def test_jigsaw_orders() -> None:
    assert ORDERS[0].tolist() == [0, 1, 2, 3] and len(ORDERS.unique(dim=0)) == 24
    _, asked = Jigsaw().transform(torch.zeros(8000, 4, 1, 2, 2), seeded(0))
    counts = Counter(asked[:, 1:].flatten().tolist())
    assert len(counts) == 24 and max(abs(n / 1000 - 1) for n in counts.values()) < 0.15
    assert asked[:, 1:].double().T.corrcoef().fill_diagonal_(0).abs().max() < 0.05
    with pytest.raises(UserError, match="cuts an image into quarters; these have 1x1 pixels"):
        pretext_of("jigsaw", ("rotation",), 9, facts(side=1))


def test_rotation_views() -> None:
    crops = torch.rand(3, 4, 3, 5, 5, generator=seeded(0))
    views, asked = Rotation().transform(crops, seeded(0))
    assert asked.tolist() == [[0, 1, 2, 3]] * 3
    for k in range(4):
        np.testing.assert_array_equal(views[:, k], np.rot90(crops[:, k].numpy(), k, (2, 3)))


def batch_of(pretext: Pretext, index: Tensor) -> Batch:
    asked = pretext.transform(torch.zeros(len(index), 4, 3, 8, 8), seeded(2))[1]
    return Batch(torch.zeros(len(index), 4, 3, 1, 1), index % 3, index, asked, torch.tensor(0.0), {})


def asked_of(name: str, head: nn.Module, pooled: Tensor, batch: Batch) -> tuple[Tensor, list[int]]:
    """Each question's answers and which is right, one view after the other."""
    w1, b1, w2, b2 = head.parameters()
    rows, answers = [], []
    for i, image in enumerate(pooled):
        for k, view in enumerate(image):
            if name == "jigsaw" and not k:
                continue
            gain = GAIN if name == "exemplar" else 1
            rows.append(gain * w2 @ torch.clamp(w1 @ view + b1, min=0) + b2)
            answers.append(int(batch.index[i] if name == "exemplar" else batch.asked[i, k]))
    return torch.stack(rows), answers


@pytest.mark.parametrize("name", ["rotation", "jigsaw", "exemplar"])
def test_terms(name: str) -> None:
    """Head and student, values and gradients; no row is left out."""
    pretext, _ = pretext_of(name, ("rotation",), 100, facts())
    batch = batch_of(pretext, torch.tensor([4, 0, 10]))
    head, teacher_head = pretext.head(DIM, facts()).double(), pretext.head(DIM, facts()).double()
    drawn = pretext.draw(seeded(0), batch.index)
    batch = batch._replace(draws={"head": drawn, "ss": drawn})
    pooled = {"teacher": normal(0, 3, 4, DIM), "student": normal(1, 3, 4, DIM).requires_grad_()}
    target, answers = asked_of(name, teacher_head, pooled["teacher"], batch)
    outputs = target.shape[1]
    assert outputs == {"rotation": 4, "jigsaw": 24, "exemplar": N}[name]
    task = HeadTask(pretext, teacher_head)
    teacher = {"pooled": pooled["teacher"]}
    both = task({}, teacher, batch), cross_entropy(target, answers)
    grads = [torch.autograd.grad(value, [*teacher_head.parameters()], retain_graph=True) for value in both]
    torch.testing.assert_close([both[0], *grads[0]], [both[1], *grads[1]], rtol=1e-10, atol=1e-12)
    assert task.watch({}, teacher, batch)["ss_accuracy"].item() == pytest.approx(pretexts.right(target, answers))
    term, student = Similarity(pretext, head, teacher_head, 0.5, 0.0), {"pooled": pooled["student"]}
    rows, _ = asked_of(name, head, pooled["student"], batch)
    both = term(student, teacher, batch), pretexts.answered(target.detach(), rows, 0.5)
    inputs = [pooled["student"], *head.parameters()]
    grads = [torch.autograd.grad(value, inputs, retain_graph=True) for value in both]
    torch.testing.assert_close([both[0], *grads[0]], [both[1], *grads[1]], rtol=1e-9, atol=1e-11)
    assert term.watch(student, teacher, batch).keys() == {"ss_accuracy"}


def test_exemplar_with_drawn_answers() -> None:
    """Of the many answers the batch's own and others, all different; the right one is among them."""
    pretext, _ = pretext_of("exemplar", ("rotation",), 6, facts())
    assert isinstance(pretext, Exemplar) and pretext.sampled and pretext.relates
    index, head, features = torch.tensor([4, 0, 10]), pretext.head(DIM, facts()).double(), normal(0, 3, 4, DIM)
    counts = Counter[int]()
    for seed in range(2000):
        drawn = pretext.draw(seeded(seed), index)
        rows = drawn["rows"].tolist()
        assert rows[:3] == [4, 0, 10] and len({*rows}) == 6
        counts.update(rows[3:])
    assert len(counts) == N - 3 and max(abs(n / 2000 * (N - 3) / 3 - 1) for n in counts.values()) < 0.15
    batch = batch_of(pretext, index)
    every, answers = asked_of("exemplar", head, features, batch)
    logits, target = pretext.answers(head, features, drawn), pretext.target(batch, drawn)
    torch.testing.assert_close(logits, every[:, drawn["rows"]])
    assert drawn["rows"][target].tolist() == answers
    assert len(pretext.draw(seeded(0), torch.arange(8))["rows"]) == 8  # a batch larger than the limit is all there is


def test_exemplars_head_learns_in_a_short_schedule() -> None:
    """Features that tell the images apart: ten epochs at the published rate are enough, with weight decay."""
    images, dim, batch = 400, 32, 50
    torch.manual_seed(0)
    features, head = torch.randn(images, dim).relu_() * 2, Numbers(dim, images)
    optimizer = build_optimizer(head.parameters(), Optim(lr=0.05))
    for _ in range(10):
        for own in torch.randperm(images, generator=seeded(1)).split(batch):
            views = (features[own, None] + 0.2 * torch.randn(batch, 4, dim)).flatten(0, 1)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(views), own.repeat_interleave(4)).backward()
            optimizer.step()
    assert (head(features).argmax(1) == torch.arange(images)).double().mean() > 0.5


def test_exemplar_counts_as_the_teachers_head_does() -> None:
    """With few labels the student's images have other numbers than they had for the teacher's head."""
    numbers = torch.tensor([2, 5, 20, 29, *range(30, 37)])
    found = planned(facts(teacher_size=40, numbers=numbers), pretext="exemplar")
    head, student = (stage.loss[key][1] for stage, key in zip(found.stages, ("head", "ss"), strict=True))
    index = torch.tensor([0, 3, 2])
    assert head.draw(seeded(0), index)["own"].tolist() == [0, 3, 2]
    assert student.draw(seeded(0), index)["own"].tolist() == [2, 29, 20]
    assert [len(part.last.weight) for part in (student.head, found.modules["teacher_head"])] == [40, 40]
    few = planned(facts(teacher_size=40, numbers=numbers), pretext="exemplar", answers=5)
    rows = few.stages[1].loss["ss"][1].draw(seeded(0), index)["rows"].tolist()
    assert rows[:3] == [2, 29, 20] and len({*rows}) == 5 and max(rows) < 40


def test_exemplar_says_what_it_takes() -> None:
    _, note = planned(facts(teacher_size=40960), pretext="exemplar").notes
    assert "40,960 training images are as many answers" in note
    assert "student's head takes 0.9 MiB" in note and "take 0.62 MiB for each image" in note
    _, whole, drawn = planned(facts(teacher_size=40960), pretext="exemplar", answers=8192).notes
    assert "0.12 MiB for each image" in whole and "8,192 of the answers are drawn in each step" in drawn


def test_names_tell_options_apart() -> None:
    """Heads are kept for other students under the views' name."""
    for name in PRETEXTS:
        assert planned(facts(), pretext=name).views.name == name
    options: list[dict[str, Any]] = [{"pretext": name} for name in PRETEXTS]
    options += [
        {"pretext": name, "transformations": t}
        for name in ("contrastive", "exemplar")
        for t in ("all", ["crop_resize"])
    ]
    options += [{"pretext": "exemplar", "answers": 5}]
    names = [planned(facts(), **given).views.name for given in options]
    assert len({*names}) == len(names)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"pretext": "jigsaw", "transformations": "all"}, {}, "jigsaw makes views of its own; transformations are for"),
        ({"pretext": "rotation", "transformations": ["crop_resize"]}, {}, "are for contrastive, exemplar"),
        ({"pretext": "tests.nowhere:Mine"}, {}, "tests.nowhere:Mine cannot be imported"),
        ({"pretext": "tests.test_pretexts:facts"}, {}, "is not derived from sskd.views.pretext.Pretext"),
        ({"pretext": "exemplar", "answers": 0}, {}, "answers must be above 0; got 0"),
        ({"pretext": "exemplar"}, {"labels": torch.arange(0)}, "a stream's images have no numbers"),
        ({"transformations": "colour_dropping"}, {"image_shape": (1, 8, 8)}, "would do nothing to images of 1 channel"),
    ],
)
def test_refusals(options: dict[str, Any], data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        planned(replace(facts(), **data), **options)


def test_a_pretext_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the documentation shows: it passes through both stages."""
    text = (Path(__file__).parent.parent / "docs" / "methods.md").read_text()
    (code,) = [one for one in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if "Pretext" in one]
    (tmp_path / "upside.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    trainer = build(partial(METHODS["sskd"], pretext="upside:UpsideDown", head_epochs=1), kept=(kept := Kept()))
    trainer.fit()
    assert [record["stage"] for record in kept.records] == ["head", "student"]
    assert all(0 <= record["validation"]["ss_accuracy"] <= 1 for record in kept.records)
