"""The released way of training a step, as we wrote it for comparison, computes the published numbers."""

import copy
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import as_published, contents
from benchmarks.lines import machine
from benchmarks.ours import Ours, normalised, random_data
from benchmarks.results import Results, exponent
from benchmarks.tables import filled
from sskd.data import shards
from sskd.data.known import known
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


def bare(module: nn.Module) -> nn.Module:
    """A copy without the taps' hooks, which would fill a store that nobody reads."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
    return copied


def test_both_sides_of_the_benchmark_train_the_same_student() -> None:
    """Same weights, same views, three steps in float64: otherwise the times would compare different work."""
    data, info = random_data(24, 10)
    ours = Ours("cifar_resnet14", "cifar_resnet8", data, info, 8, Execution(precision="fp64"), lr=0.05)
    theirs = [bare(one) for one in (ours.student.backbone, ours.heads()[0], ours.teacher.backbone, ours.heads()[1])]
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


def test_torchdistill_trains_on_the_same_loss() -> None:
    pytest.importorskip("torchdistill", reason="compares with torchdistill, which is not installed: sskd[peer]")
    from benchmarks.peer import PeerStep, box

    data, info = random_data(24, 10)
    ours = Ours("cifar_resnet14", "cifar_resnet8", data, info, 8, Execution(precision="fp64"), lr=0.05)
    student, teacher = bare(ours.student.backbone), bare(ours.teacher.backbone)
    pixels = as_published.FourRotations(data.pixels, data.labels, (0.5,) * 3, (0.2,) * 3)
    made = box(student, teacher, ("fc", "fc"), (64, 64), pixels, 8, 0, "cpu", 0.05)
    for wrapper, head in zip((made.student_model, made.teacher_model), ours.heads(), strict=True):
        wrapper.double().ss_module.load_state_dict(head.state_dict())
    peer = PeerStep(made)
    for _ in range(2):
        batch = ours.batch()
        expected = ours.train(batch).total.item()
        found = peer.train(normalised(ours.student, batch.images), batch.labels, {})
        # Theirs sorts unstably, so which rows of one error level are kept differs; to rounding in tests/test_peer.py.
        assert found == pytest.approx(expected, rel=1e-3)
    peer.prepare()
    images, labels, _ = next(peer.batches)
    assert images.shape == (8, 4, 3, 32, 32) and labels.shape == (8,)


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    results = Results(path, "step", {"device": "cpu"})
    assert "a" not in results
    results.keep("a", {"ms": 1})
    assert "a" in Results(path, "step", {"device": "cpu"}) and str(tmp_path) not in path.read_text()
    with pytest.raises(SystemExit, match="measured with other settings"):
        Results(path, "step", {"device": "cuda"})
    kept = json.loads(path.read_text())
    for name in ("accelerator", "allocator"):
        path.write_text(json.dumps({**kept, name: "another"}))
        with pytest.raises(SystemExit, match="was measured with another; here is"):
            Results(path, "step", {"device": "cpu"})


def test_documents_are_filled_from_json(tmp_path: Path) -> None:
    power = exponent([1, 4, 16], [3, 6, 12])
    report = {
        "benchmark": "growth",
        "command": "python -m benchmarks.growth",
        "processor": "a processor",
        "threads": 1,
        "torch": "2",
        "settings": {"teacher": "t", "student": "s", "threads": 1},
        "parts": {"losses, width": {"sizes": [1, 1000], "ms": [1.0, 2.0], "exponents": {"ms": power}}},
    }
    path, mark = tmp_path / "growth.json", "<!-- growth.json -->"
    path.write_text(json.dumps(report))
    text = filled(f"before\n{mark}\nold\n<!-- end -->\nafter", path, tmp_path)
    assert "| losses, width, ms | 1: 1 · 1,000: 2 | 0.50 |" in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("<!-- end -->\nafter")
    assert filled(text, path, tmp_path) == text
    with pytest.raises(SystemExit, match="0 places"):
        filled("nothing", path, tmp_path)


def test_tables_of_contents_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round begins without what is kept, and keeps it."""
    asked = list[str]()

    def find_out(kind: str, key: str, find: Callable[[], object]) -> object:
        asked.append(os.environ["SSKD_CACHE"])
        return known(kind, key, find)

    monkeypatch.setenv("SSKD_CACHE", str(tmp_path))
    monkeypatch.setattr(shards, "SMALL", 0)
    monkeypatch.setattr(shards, "known", find_out)
    report = contents.main(images=20, each=8, classes=2, distinct=4, rounds=2, out=tmp_path / "contents.json")
    assert len(set(asked)) == 2 and asked == sorted(asked) and len(asked) == 2 * 2 * 2
    assert all(0 < low <= high for low, _, high in (row["seconds"] for row in report["parts"].values()))


PLACE = Path(__file__).parents[1]
MARKED = [
    (document, file)
    for document in sorted((PLACE / "docs").glob("*.md"))
    for file in re.findall(r"<!-- (results/.*?\.json) -->", document.read_text())
]


@pytest.mark.parametrize(("document", "file"), MARKED, ids=[f"{one.name}-{file}" for one, file in MARKED])
def test_documents_show_what_was_measured(document: Path, file: str) -> None:
    """What is reckoned too, or that nothing was measured."""
    text = document.read_text()
    if (PLACE / file).exists():
        assert filled(text, PLACE / file, PLACE) == text
    else:
        assert f"<!-- {file} -->\n*Not measured yet.*\n<!-- end -->" in text


def test_a_file_that_is_gone_on_with_says_which_commit_measured_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"processor": "P", "torch": "T", "threads": 1, "accelerator": None, "allocator": "libm.so"}
    for commit, part in (("1" * 40, "a:b"), ("2" * 40, "c:d")):
        monkeypatch.setattr("benchmarks.results.environment", lambda c=commit: {**here, "git": {"commit": c}})
        results = Results(tmp_path / "r.json", "step", {"threads": 1})
        results.keep(part, {})
    report = json.loads((tmp_path / "r.json").read_text())
    assert machine(report, "a:b").endswith("commit 1111111") and machine(report, "c:d").endswith("commit 2222222")
    assert machine(report).endswith("commit 1111111, 2222222")
    assert report["command"] == "LD_PRELOAD=libm.so python -m benchmarks.step --threads 1"
    assert "libm.so" in machine(report)
