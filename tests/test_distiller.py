"""`Distiller`: the engine's numbers in anybody's loop, what it keeps, and bad input."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from torch import Tensor, nn

from sskd import Distiller, UserError
from sskd.methods import METHODS
from tests.trainers import CLASSES, SHAPE, SIZE, build, info, steps_of

LABELS = info().labels


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    teacher, student = (timm.create_model("cifar_resnet8", num_classes=CLASSES) for _ in range(2))
    return student, teacher


def distiller(method: str = "sskd", student: nn.Module | None = None, **options: Any) -> Distiller:
    made, teacher = networks()
    given = {"num_classes": CLASSES, "image_shape": SHAPE, "labels": LABELS, "epochs": 4, **options}
    return Distiller(student or made, teacher, method, **given)


def images(count: int = SIZE) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", METHODS)
def test_numbers_are_the_engines(method: str) -> None:
    """Each stage of each method, from the same crops and draws: loss, terms, and gradients of what it trains."""
    trainer = build(METHODS[method], epochs=4)
    mine = distiller(method, mean=(0.5,) * 3, std=(0.2,) * 3)
    mine.student.load_state_dict(trainer.student.backbone.state_dict())
    teacher: Any = mine.teacher_network
    teacher.backbone.load_state_dict(cast(Any, trainer.teacher).backbone.state_dict())
    for run, step, parameters in steps_of(trainer):
        mine.set_stage(run.stage.name)
        mine.set_epoch(1)
        for name in mine._named().keys() - {"student", "teacher"}:
            mine._named()[name].load_state_dict(run.modules[name].state_dict())
        views = trainer.plan.views
        cut, generator = next(iter(run.feed.epoch(SIZE, views.views if views.own_crop else 1, (0,))))
        mine.generator.set_state(generator.get_state())
        crops = cut.pixels.float() / 255
        seen = mine(crops if crops.shape[1] > 1 else crops[:, 0], cut.labels, cut.index)
        expected = step(run.batch(cut, generator, 1))
        assert seen.terms.keys() == expected.terms.keys() and seen.metrics.keys() == expected.watched.keys()
        torch.testing.assert_close(seen.terms, expected.terms)
        gradients = torch.autograd.grad(expected.total, parameters, allow_unused=True)
        ours = torch.autograd.grad(seen.loss, mine.trainable_parameters(), allow_unused=True)
        for a, b in zip(ours, gradients, strict=True):
            assert (a is None) == (b is None) and (a is None or torch.allclose(a, b, rtol=1e-3, atol=1e-6))


def test_sskd_in_a_loop_learns_and_leaves_the_teacher_alone() -> None:
    torch.manual_seed(0)
    mine = distiller(options={"head_epochs": 2})
    before = copy.deepcopy(mine.teacher_network.state_dict())  # type: ignore[union-attr]
    x, y = images(12), LABELS
    losses: dict[str, list[float]] = {}
    for stage in mine.stages:
        mine.set_stage(stage.name)
        optimizer = torch.optim.SGD(mine.trainable_parameters(), 0.05, 0.9)
        for epoch in range(8):
            mine.set_epoch(epoch)
            seen = mine(x, y)
            optimizer.zero_grad()
            seen.loss.backward()
            optimizer.step()
            losses.setdefault(stage.name, []).append(seen.loss.item())
    assert [stage.name for stage in mine.stages] == ["head", "student"]
    assert all(values[-1] < values[0] for values in losses.values()), losses
    assert all(torch.equal(value, before[key]) for key, value in mine.teacher_network.state_dict().items())  # type: ignore[union-attr]
    assert seen.terms.keys() == {"ce", "kd", "tf", "ss"} and seen.logits is not None
    assert seen.logits.shape == (12, CLASSES) and {"top1", "ss_accuracy", "ss_kept"} <= seen.metrics.keys()


def test_modes_are_kept() -> None:
    mine = distiller()
    head = mine.shared_modules["teacher_head"]
    assert head.training and not mine.student.training and not any(p.requires_grad for p in mine.student.parameters())
    mine.set_stage("student")
    mine.train()
    assert mine.student.training and not mine.teacher_network.training and not head.training  # type: ignore[union-attr]
    assert {id(p) for p in mine.trainable_parameters()} == {id(p) for p in mine.parameters() if p.requires_grad}
    mine.eval()
    assert not mine.student.training and not mine.training
    statistics = copy.deepcopy(mine.state_dict())
    mine(images(), LABELS[:SIZE])
    assert all(torch.equal(v, statistics[k]) for k, v in mine.state_dict().items() if isinstance(v, Tensor))


def test_a_state_goes_on_as_if_it_had_never_stopped() -> None:
    def steps(mine: Distiller, count: int) -> list[float]:
        return [mine(images(), LABELS[:SIZE], torch.arange(SIZE)).loss.item() for _ in range(count)]

    for method in ("sskd", "crd"):
        whole = distiller(method, options={"transformations": ["rotation", "crop_resize"]} if method == "sskd" else {})
        whole.set_stage("student")
        whole.set_epoch(1)
        first, state = steps(whole, 2), copy.deepcopy(whole.state_dict())
        assert not any("teacher_network" in key for key in state)
        rest = distiller(method, options={"transformations": ["rotation", "crop_resize"]} if method == "sskd" else {})
        for value in rest.parameters():
            torch.nn.init.zeros_(value) if value.requires_grad else None
        rest.load_state_dict(state)
        assert (rest.stage.name, rest.epoch) == ("student", 1)
        assert steps(rest, 2) == steps(whole, 2) and len({*first}) == 2


def test_a_head_is_given_to_the_next_student(tmp_path: Path) -> None:
    one = distiller()
    head: Any = one.shared_modules["teacher_head"]
    nn.init.ones_(head[0].weight)
    one.save_shared(tmp_path / "head.safetensors")
    other = distiller()
    other.load_shared(tmp_path / "head.safetensors")
    assert [stage.name for stage in other.stages] == ["student"] == [other.stage.name]
    assert other.shared_modules["teacher_head"].get_parameter("0.weight").eq(1).all()
    with pytest.raises(
        UserError, match="of the method sskd or of a teacher of another width; here the method is hsakd"
    ):
        distiller("hsakd").load_shared(tmp_path / "head.safetensors")
    (tmp_path / "bad").write_text("no")
    with pytest.raises(UserError, match="bad cannot be read"):
        other.load_shared(tmp_path / "bad")


def test_the_student_is_a_folder_that_timm_loads(tmp_path: Path) -> None:
    mine = distiller(mean=(0.5,) * 3, std=(0.2,) * 3)
    mine.save_student(tmp_path, class_names=tuple("abcd"))
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(images()), mine.eval().student(images()))
    record: Any = loaded.pretrained_cfg
    assert tuple(record["mean"]) == (0.5,) * 3
    with pytest.raises(UserError, match="say how images are normalised"):
        distiller().save_student(tmp_path / "other")
    with pytest.raises(UserError, match="There are 4 classes; got 2 class names"):
        mine.save_student(tmp_path, class_names=("a", "b"))


@pytest.mark.parametrize("amp", [False, True])
def test_under_autocast_losses_are_in_fp32(amp: bool) -> None:
    mine = distiller()
    mine.set_stage("student")
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        seen = mine(images(), LABELS[:SIZE])
    assert all(value.dtype == torch.float32 for value in (seen.loss, *seen.terms.values()))
    seen.loss.backward()
    exact = distiller()
    exact.set_stage("student")
    expected = exact(images(), LABELS[:SIZE]).loss
    assert torch.equal(seen.loss, expected) is not amp and seen.loss.item() == pytest.approx(expected.item(), rel=0.05)


def test_accumulated_gradients_are_those_of_the_parts() -> None:
    mine = distiller("kd")
    x, y = images(), LABELS[:SIZE]
    for half in (slice(0, 3), slice(3, 6)):
        (mine.eval()(x[half], y[half]).loss / 2).backward()
    parts = [p.grad.clone() for p in mine.trainable_parameters() if p.grad is not None]
    mine.zero_grad()
    mine(x, y).loss.backward()
    whole = [p.grad for p in mine.trainable_parameters() if p.grad is not None]
    assert parts and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(parts, whole, strict=True))


def test_fewer_crops_than_views_are_refused_and_crops_of_their_own_taken() -> None:
    mine = distiller()
    crops = torch.rand(SIZE, 4, *SHAPE)
    mine(crops, LABELS[:SIZE])
    with pytest.raises(UserError, match=r"4 crops of each \[B, 4, \.\.\.\].* got \[6, 2, 3, 8, 8\]"):
        mine(crops[:, :2], LABELS[:SIZE])


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "shape": (
        lambda: distiller()(torch.rand(6, 1, 8, 8), LABELS[:6]),
        r"takes images \[B, 3, 8, 8\].* got \[6, 1, 8, 8\]",
    ),
    "labels": (lambda: distiller()(images(), LABELS[:5]), r"got \[6, 3, 8, 8\] and 5 labels"),
    "bytes": (lambda: distiller()(images().byte(), LABELS[:6]), "not torch.uint8: divide bytes by 255"),
    "no index": (lambda: distiller("crd")(images(), LABELS[:6]), "Call the Distiller with index"),
    "no labels": (lambda: distiller("crd", labels=None), "give a Distiller labels"),
    "one image": (
        lambda: distiller()(images(1), LABELS[:1]),
        "its term head.; a batch of one image has nothing to compare",
    ),
    "label": (
        lambda: distiller()(images(), LABELS[:6] + 3),
        "Labels are from 0 to 3, by num_classes; got labels from 3 to 6",
    ),
    "no network": (lambda: distiller(student="resnet18"), "The student is a torch.nn.Module.*got 'resnet18'"),  # type: ignore[arg-type]
    "options": (lambda: distiller(options=[1]), r"options: expected names with values; got \[1\]"),
    "taps": (lambda: distiller(student_taps={"a": 3}), "student_taps.*expected text; got"),
    "epochs": (lambda: distiller(epochs=-1), "epochs is a whole number, 1 or more; got -1"),
    "stage": (lambda: distiller().set_stage("heads"), "no stage of sskd named 'heads'. Did you mean 'head'"),
    "method": (lambda: distiller("skd"), "There is no method named 'skd'"),
    "option": (lambda: distiller("sskd", options={"ratio": 1}), "no option of sskd named 'ratio'"),
    "half": (lambda: distiller(mean=(0.5,) * 3), "needs both a mean and a std"),
    "classes": (lambda: distiller(num_classes=5), "4 logits for 5 classes"),
    "colours": (lambda: distiller(options={"transformations": "all"}), "change colours, of images in"),
    "no teacher": (
        lambda: Distiller(networks()[0], None, num_classes=4, image_shape=SHAPE),
        "sskd distils from a teacher",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(UserError, match=message):
        call()


def test_a_teacher_in_train_mode_is_refused() -> None:
    mine = distiller()
    mine.teacher_network.backbone.train()  # type: ignore[union-attr]
    with pytest.raises(UserError, match="The teacher is in train mode"):
        mine(images(), LABELS[:SIZE])
    mine.train()
    mine(images(), LABELS[:SIZE])


def test_compiled_it_gives_the_same() -> None:
    mine = distiller("kd")
    expected = mine.eval()(images(), LABELS[:SIZE])
    compiled = torch.compile(mine, backend="eager")(images(), LABELS[:SIZE])
    torch.testing.assert_close(compiled.terms, expected.terms)


@pytest.mark.parametrize("place", ["a flipped bit", "a cut"])
def test_a_damaged_head_is_refused(place: str, tmp_path: Path) -> None:
    mine = distiller()
    mine.save_shared(tmp_path / "head")
    content = bytearray((tmp_path / "head").read_bytes())
    content[-5] ^= 1
    (tmp_path / "head").write_bytes(content if place == "a flipped bit" else content[:-9])
    with pytest.raises(UserError, match=r"head cannot be read \(.*Give a file that save_shared has written"):
        mine.load_shared(tmp_path / "head")


def test_notes_say_what_was_scaled() -> None:
    assert distiller().notes == (
        "head_epochs: 1 epoch, the published 60 of 240 beside the student's 4 (--options.head_epochs N for another "
        "number).",
    )


def test_labels_are_looked_at_in_every_batch_on_the_host() -> None:
    mine = distiller("kd")
    mine(images(), LABELS[:SIZE])
    with pytest.raises(UserError, match="got labels from 3 to 6"):
        mine(images(), LABELS[:SIZE] + 3)
    with pytest.raises(UserError, match=r"class numbers \[B\], such as torch.int64; got \[6\] of torch.float32"):
        mine(images(), LABELS[:SIZE].float())
