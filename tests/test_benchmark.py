"""The released way of training a step, as we wrote it for comparison, computes the published numbers."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import as_published
from benchmarks.ours import Ours, normalised, random_data
from benchmarks.step import main, spelled
from sskd.train.step import Execution

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden"
KEYS = ("ce", "kd", "tf", "ss")


@pytest.mark.skipif(not GOLDEN.exists(), reason="the published implementations' numbers (../shared/golden) are absent")
def test_as_published_computes_the_published_numbers() -> None:
    files = sorted(GOLDEN.glob("sskd_loss_*.npz"))
    assert files
    for file in files:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
        for i in sorted({key.split(".")[0] for key in arrays}):
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
            assert float(value) == pytest.approx(expected[key], rel=1e-9), key
    state = student.backbone.state_dict()
    for key, value in ours.student.backbone.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=1e-9, atol=1e-12, msg=key)


def test_options_are_spelled_either_way() -> None:
    words = ["--batch-size", "8", "--compiled", "--out=a-b.json"]
    assert spelled(words) == ["--batch_size", "8", "--compiled=true", "--out=a-b.json"]
    assert spelled(["--compiled", "false", "--compiled"]) == ["--compiled", "false", "--compiled=true"]


def test_the_benchmark_measures_every_variant(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    main("cifar_resnet8", "cifar_resnet8", batch_size=4, rounds=1, steps=1, threads=1, images=16, classes=4, out=out)
    written = json.loads(out.read_text())
    text = json.dumps(written)
    for variant in ("as published, without input", "as published, with input", "ours, fp32 contiguous"):
        assert variant in text
    assert "torch" in text and "command" in text
