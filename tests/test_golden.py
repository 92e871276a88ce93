"""The package against the published numbers, and the checker against files of other content."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden import TOLERANCE, check, main
from tests.oracles import ce, kd, sskd
from tests.oracles.published import network
from tests.oracles.stored import rnd

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the published numbers are not in {GOLDEN}")


def store(path: Path, arrays: Mapping[str, object]) -> Path:
    np.savez(path, **{key: np.asarray(value) for key, value in arrays.items()})  # type: ignore[arg-type]
    return path


@needs_golden
def test_published_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(GOLDEN)]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"(\S+)\s+(\S+)\s+(\S+)  ok", line) for line in lines]
    checked = {(match[1].removesuffix("_dev.npz"), match[2]): float(match[3]) for match in found if match}
    assert max(checked.values()) <= TOLERANCE
    assert {("methods", "kd_T4"), ("methods_later", "kd_ls_T2"), ("models", "resnet8"), ("models", "ShuffleV2")} <= set(
        checked
    )
    assert {kind for kind, _ in checked} >= {"methods", "methods_later", "models", "sskd_loss", "sskd_trajectory"}
    assert f"{len(checked)} cases, 0 failed" in lines[-1]


@needs_golden
@pytest.mark.parametrize("key", ["0.tf", "0.kept_ss", "0.grad_student_repr", "0.teacher_logits"])
def test_perturbed_copy(tmp_path: Path, key: str) -> None:
    with np.load(GOLDEN / "sskd_loss_dev.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    value = arrays[key].reshape(-1)
    value[0] += 1e-4 if value.dtype.kind == "f" else 1
    store(tmp_path / "sskd_loss_copy.npz", arrays)
    assert [case.ok for case in check(tmp_path)] == [False, True]
    assert main([str(tmp_path)]) == 1


def test_nothing_to_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert main([]) == 2
    store(tmp_path / "methods_new.npz", {"in.student_logits": rnd(0, 2, 3), "unheard_of.loss": 1.0})
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "not checked: unheard_of" in out and "nothing that can be checked" in out
    store(tmp_path / "other.npz", {"a": 1.0})
    (tmp_path / "models_broken.npz").write_bytes(b"no zip")
    assert [case.ok for case in check(tmp_path)] == [False, False]


def loss_case(
    seed: int, size: int, classes: int, dims: tuple[int, int], ratios: tuple[float, float]
) -> dict[str, object]:
    """What the slow oracle makes of random inputs; the teacher's logits are integers, so that entries tie."""
    target = np.random.RandomState(seed).randint(0, classes, size).tolist()
    student, teacher = rnd(seed + 1, size, 4, classes).requires_grad_(), rnd(seed + 2, size, 4, classes).mul(2).round()
    student_z, teacher_z = rnd(seed + 3, size, 4, dims[0]).requires_grad_(), rnd(seed + 4, size, 4, dims[1])
    tf, kept_tf = sskd.transformed(teacher, student, target, 4.0, ratios[1])
    ss, kept_ss = sskd.similarity(teacher_z, student_z, 0.5, ratios[0])
    terms = {
        "ce": ce.cross_entropy(student[:, 0], target),
        "kd": kd.soft_targets(teacher[:, 0], student[:, 0], 4.0),
        "tf": tf,
        "ss": ss,
    }
    total = 0.1 * terms["ce"] + 0.9 * terms["kd"] + 2.7 * tf + 10 * ss
    grads = torch.autograd.grad(total, (student, student_z))
    inputs: dict[str, Tensor] = {
        "student_logits": student,
        "teacher_logits": teacher,
        "student_repr": student_z,
        "teacher_repr": teacher_z,
        "grad_student_logits": grads[0],
        "grad_student_repr": grads[1],
    }
    return {
        "target": target,
        **{name: value.detach().flatten(0, 1).numpy() for name, value in inputs.items()},
        **{name: value.item() for name, value in terms.items()},
        "ratio_ss": ratios[0],
        "ratio_tf": ratios[1],
        "kept_tf": kept_tf,
        "kept_ss": kept_ss,
    }


def test_other_losses(tmp_path: Path) -> None:
    given = [(0, 3, 7, (5, 4), (0.5, 0.25)), (10, 5, 2, (2, 9), (1.0, 0.0)), (20, 6, 11, (8, 8), (0.3, 1.0))]
    cases = [loss_case(*case) for case in given]
    arrays = {f"{i}.{key}": value for i, case in enumerate(cases) for key, value in case.items()}
    path = store(tmp_path / "sskd_loss_other.npz", arrays)
    done = check(tmp_path)
    assert [case.name for case in done] == ["0", "1", "2"] and max(case.error for case in done) < 1e-12
    store(path, arrays | {"1.kept_tf": [0]})
    assert [case.ok for case in check(tmp_path)] == [True, False, True]


@torch.no_grad()
def test_features_and_train_mode(tmp_path: Path) -> None:
    """The keys that the models' file at hand may not have: statistics of features, logits in train mode."""
    images = rnd(5, 3, 3, 16, 16)
    arrays: dict[str, object] = {"input": images.numpy()}
    for name, stages in {"resnet8": 3, "vgg8": 4}.items():
        made = network(name, 7, 3, "")
        seen: dict[int, Tensor] = {}
        for i, tap in enumerate(("stem", *(f"stage{k}" for k in range(1, stages + 1)), "pooled")):
            module = made.get_submodule(made.taps[tap].module)
            if made.taps[tap].at == "in":
                module.register_forward_pre_hook(lambda _, args, i=i, seen=seen: seen.update({i: args[0].clone()}))
            else:
                module.register_forward_hook(lambda _, args, output, i=i, seen=seen: seen.update({i: output.clone()}))
        arrays[f"{name}.logits"] = made(images).numpy()
        for i, value in seen.items():
            stored = {"mean": value.numpy().mean(), "std": value.numpy().std(ddof=1), "shape": value.shape}
            arrays |= {f"{name}.f{i}.{key}": number for key, number in stored.items()}
        arrays[f"{name}.train_logits"] = made.train()(images).numpy()
    path = store(tmp_path / "models_other.npz", arrays)
    assert [(case.name, case.error < 1e-12) for case in check(tmp_path)] == [("resnet8", True), ("vgg8", True)]
    changes = {"f1.mean": 0.5, "f2.std": 0.5, "f3.shape": (3, 1), "train_logits": arrays["resnet8.logits"]}
    for key, changed in changes.items():
        store(path, arrays | {f"resnet8.{key}": changed})
        assert [(case.ok, case.problem) for case in check(tmp_path)] == [(False, f"worst: resnet8.{key}"), (True, "")]
