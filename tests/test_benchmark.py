"""The released way of training a step, as we wrote it for comparison, computes the published numbers."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import as_published
from benchmarks.ours import Ours, normalised, random_data
from benchmarks.step import ALONE, WITH_INPUT, has_bf16, main, spelled
from sskd.methods.parts import CrossEntropy, SoftTargets
from sskd.methods.sskd import Similarity, Transformed
from sskd.train.step import Execution
from sskd.views.contrastive import Contrastive
from sskd.views.pretext import Batch

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden"
KEYS = ("ce", "kd", "tf", "ss")


@pytest.mark.skipif(not GOLDEN.exists(), reason="the published implementations' numbers (../shared/golden) are absent")
def test_as_published_computes_the_published_numbers() -> None:
    files = sorted(GOLDEN.glob("sskd_loss_*.npz"))
    assert files
    for file in files:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
        cases = sorted({key.split(".")[0] for key in arrays})
        assert cases
        for i in cases:
            student, teacher = (
                (arrays[f"{i}.{side}_logits"].requires_grad_(), arrays[f"{i}.{side}_repr"].requires_grad_())
                for side in ("student", "teacher")
            )
            ratios = float(arrays[f"{i}.ratio_tf"]), float(arrays[f"{i}.ratio_ss"])
            found = as_published.losses(student, teacher, arrays[f"{i}.target"], *ratios)
            for key in KEYS:
                torch.testing.assert_close(found[key], arrays[f"{i}.{key}"], rtol=1e-9, atol=1e-12)
            total = sum(w * found[key] for w, key in zip((0.1, 0.9, 2.7, 10.0), KEYS, strict=True))
            logits, head = torch.autograd.grad(torch.as_tensor(total), student)
            torch.testing.assert_close(logits, arrays[f"{i}.grad_student_logits"], rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(head, arrays[f"{i}.grad_student_repr"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ratios", [(1.0, 0.75), (0.5, 0.25), (0.3, 1.0)])
@pytest.mark.parametrize("size", [3, 16])
def test_as_published_computes_the_packages_terms(size: int, ratios: tuple[float, float]) -> None:
    torch.manual_seed(size)
    logits, z = torch.randn(2, size, 4, 10, dtype=torch.float64), torch.randn(2, size, 4, 6, dtype=torch.float64)
    labels = torch.randint(0, 10, (size,))
    sides = [(logits[i].flatten(0, 1), z[i].flatten(0, 1)) for i in range(2)]
    found = as_published.losses(sides[0], sides[1], labels, *ratios)
    batch = Batch(torch.zeros(size, 4, 1, 1, 1), labels, labels, labels[:, None].expand(-1, 4), torch.zeros(()), {})
    student, teacher = ({"logits": logits[i], "pooled": z[i]} for i in range(2))
    terms = {
        "ce": CrossEntropy(),
        "kd": SoftTargets(4.0),
        "tf": Transformed(4.0, ratios[0]),
        "ss": Similarity(Contrastive(), nn.Identity(), nn.Identity(), 0.5, ratios[1]),
    }
    assert found.keys() == terms.keys()
    for key, term in terms.items():
        torch.testing.assert_close(found[key], term(student, teacher, batch), rtol=1e-9, atol=1e-12)


def test_the_published_pipeline_makes_four_views() -> None:
    """Upright again, all views of one image show it flipped or none, each moved by a crop of its own."""
    ramp = torch.arange(60, 92, dtype=torch.uint8).expand(1, 3, 32, 32).contiguous()
    dataset = as_published.FourRotations(ramp, torch.tensor([7]), (0.0,) * 3, (1.0,) * 3)
    flips, moved = set(), set()
    for _ in range(20):
        views, label = dataset[0]
        assert views.shape == (4, 3, 32, 32) and label == 7
        upright = torch.stack([torch.rot90(view, -k, (-2, -1)) for k, view in enumerate(views)])
        steps = (upright * 255).round()[:, 0, 16, 15:17].diff().flatten().tolist()
        assert steps in ([1.0] * 4, [-1.0] * 4)
        flips.add(steps[0])
        moved |= {float(view) for view in (upright - upright[:1]).abs().amax((1, 2, 3))[1:]}
    assert flips == {1.0, -1.0} and len(moved) > 1


def test_both_sides_of_the_benchmark_train_the_same_student() -> None:
    """Same weights, same views, three steps in float64: otherwise the times would compare different work."""
    data, info = random_data(24, 10)
    ours = Ours("cifar_resnet14", "cifar_resnet8", data, info, 8, Execution(precision="fp64"), lr=0.05)
    theirs = copy.deepcopy((ours.student.backbone, ours.heads()[0], ours.teacher.backbone, ours.heads()[1]))
    for module in theirs:  # the taps' hooks were copied too; they would fill a store that nobody reads
        for part in module.modules():
            part._forward_hooks.clear()
            part._forward_pre_hooks.clear()
    student = as_published.WithHead(theirs[0], theirs[1])
    published = as_published.PublishedStep(student, as_published.WithHead(theirs[2], theirs[3]), "cpu", lr=0.05)
    for _ in range(3):
        batch = ours.batch()
        found = ours.train(batch)
        expected = published(normalised(ours.student, batch.images), batch.labels)
        for key, value in {"total": found.total, **found.terms}.items():
            assert value.item() == pytest.approx(expected[key], rel=1e-9), key
    state = student.backbone.state_dict()
    for key, value in ours.student.backbone.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=1e-9, atol=1e-12, msg=key)


def test_options_are_spelled_either_way() -> None:
    words = ["--batch-size", "8", "--compiled", "--out=a-b.json"]
    assert spelled(words) == ["--batch_size", "8", "--compiled=true", "--out=a-b.json"]
    assert spelled(["--compiled", "false", "--compiled"]) == ["--compiled", "false", "--compiled=true"]


def test_the_benchmark_measures_every_variant(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    report = main(
        "cifar_resnet8", "cifar_resnet8", batch_size=4, rounds=1, steps=1, threads=1, images=16, classes=4, out=out
    )
    written = json.loads(out.read_text())
    assert written == json.loads(json.dumps(report))
    assert written["command"].startswith("python -m benchmarks.step --teacher cifar_resnet8 --student cifar_resnet8 ")
    assert str(tmp_path) not in out.read_text()
    assert {"python", "torch", "timm", "sskd", "processor", "platform"} <= written.keys()
    assert written["settings"]["batch_size"] == 4 and written["settings"]["threads"] == 1
    bf16 = [f"ours, bf16 channels_last{end}" for end in ("", " folded")] if has_bf16("cpu") else []
    fp32 = [f"ours, fp32 {end}" for end in ("contiguous", "channels_last", "channels_last folded")]
    expected = [ALONE, WITH_INPUT, *fp32, *bf16]
    assert list(written["variants"]) == expected
    for row in written["variants"].values():
        low, median, high = row["ms_per_step"]
        assert 0 < low <= median <= high and len(row["rounds_s"]) == 1 and row["first_step_s"] > 0
        assert median == pytest.approx(1000 * row["rounds_s"][0])
        assert row["images_per_s"] == pytest.approx(4000 / median)
        for key, reference in (("times_alone", ALONE), ("times_with_input", WITH_INPUT)):
            assert row[key][1] == pytest.approx(written["variants"][reference]["ms_per_step"][1] / median)
