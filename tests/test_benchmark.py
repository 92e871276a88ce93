"""The released way of training a step, as we wrote it for comparison, computes the published numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import as_published
from benchmarks.step import main

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


def test_the_benchmark_measures_every_variant(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    main("cifar_resnet8", "cifar_resnet8", batch_size=4, rounds=1, steps=1, threads=1, images=16, classes=4, out=out)
    written = json.loads(out.read_text())
    text = json.dumps(written)
    for variant in ("as published, without input", "as published, with input", "ours, fp32 contiguous"):
        assert variant in text
    assert "torch" in text and "command" in text
