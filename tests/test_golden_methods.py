"""The checker of published methods, on files of other sizes that the slow oracles have made."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.golden import check, main
from tests.oracles import ab, crd, fitnet
from tests.oracles.stored import rnd

B = 4
SIZES = {"student": ((6, 8), (10, 4), (12, 4)), "teacher": ((8, 16), (14, 2), (12, 4))}


def inputs(kind: str) -> dict[str, Tensor]:
    """`in.*` of three stages; of unequal channels and sizes but for the last."""
    return {
        f"in.{side}_{kind}{i}": rnd(10 * i + len(side), B, channels, size, size)
        for side, sizes in SIZES.items()
        for i, (channels, size) in enumerate(sizes, 1)
    }


def store(path: Path, arrays: Mapping[str, Tensor]) -> Path:
    np.savez(path, **{key: value.detach().numpy() for key, value in arrays.items()})  # type: ignore[arg-type]
    return path


def convolution(student: tuple[int, int], teacher: tuple[int, int], prefix: str) -> tuple[dict[str, Tensor], bool]:
    """Weights of a regressor of these (channels, size), and whether it is transposed."""
    (c, s), (d, t) = student, teacher
    kernel = {2: 3, 0.5: 4}.get(s / t, 1 + s - t)
    shape = (c, d, 4, 4) if 2 * s == t else (d, c, kernel, kernel)
    weights = {"conv.weight": rnd(3, *shape) / 9, "conv.bias": rnd(4, d), "bn.weight": rnd(5, d), "bn.bias": rnd(6, d)}
    return {f"{prefix}{key}": value for key, value in weights.items()}, 2 * s == t


def regressed(x: Tensor, w: Mapping[str, Tensor], prefix: str, ratio: float) -> Tensor:
    """Convolution by the ratio of sizes, batch norm of the batch's own statistics."""
    weight, bias = w[f"{prefix}conv.weight"], w[f"{prefix}conv.bias"]
    if ratio == 0.5:
        y = F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    else:
        y = F.conv2d(x, weight, bias, stride=2 if ratio == 2 else 1, padding=1 if ratio == 2 else 0)
    return F.batch_norm(y, None, None, w[f"{prefix}bn.weight"], w[f"{prefix}bn.bias"], training=True)


def boundaries(places: str) -> dict[str, Tensor]:
    """AB with two connectors (transposed, strided) and one stage without; keys by name or by place."""
    arrays = inputs("preact")
    leaves = [arrays[f"in.student_preact{i}"].requires_grad_() for i in (1, 2, 3)]
    connected = []
    for i, leaf in enumerate(leaves):
        student, teacher = SIZES["student"][i], SIZES["teacher"][i]
        prefix = f"ab.param.connector.connectors.{i}."
        if student != teacher:
            weights, _ = convolution(student, teacher, prefix)
            connected.append(regressed(leaf, weights, prefix, student[1] / teacher[1]))
            arrays |= {
                key.replace("conv.", "0.").replace("bn.", "1.") if places == "places" else key: value
                for key, value in weights.items()
            }
        else:
            connected.append(leaf)
    loss = ab.boundary(connected, [arrays[f"in.teacher_preact{i}"] for i in (1, 2, 3)])
    grads = torch.autograd.grad(loss, leaves)
    return {**arrays, "ab.loss": loss, **{f"ab.grad.student_preact{i}": grad for i, grad in enumerate(grads, 1)}}


@pytest.mark.parametrize("places", ["names", "places"])
def test_connectors(places: str, tmp_path: Path) -> None:
    store(tmp_path / "methods_other.npz", boundaries(places))
    (case,) = check(tmp_path)
    assert case.ok and case.name == "ab", case


def test_regressor_of_another_size(tmp_path: Path) -> None:
    arrays = inputs("map")
    leaf = arrays["in.student_map2"].requires_grad_()
    weights, _ = convolution(SIZES["student"][1], SIZES["teacher"][1], "fitnet.param.regressor.")
    loss = fitnet.hint(regressed(leaf, weights, "fitnet.param.regressor.", 2).relu(), arrays["in.teacher_map2"])
    grad = torch.autograd.grad(loss, leaf)[0]
    store(tmp_path / "methods_other.npz", {**arrays, **weights, "fitnet.loss": loss, "fitnet.grad.student_map2": grad})
    (case,) = check(tmp_path)
    assert case.ok and case.name == "fitnet", case


def contrast() -> dict[str, Tensor]:
    """CRD with eleven rows of five numbers; a negative that is drawn twice."""
    memory = {side: F.normalize(rnd(seed, 11, 5)) for side, seed in (("student", 1), ("teacher", 2))}
    embedding = {"student": rnd(3, B, 7).requires_grad_(), "teacher": rnd(4, B, 9)}
    weight = {side: rnd(5, 5, value.shape[1]) for side, value in embedding.items()}
    bias = {side: rnd(6, 5) for side in embedding}
    index, drawn = [3, 0, 10, 7], [[1, 2, 2], [4, 5, 6], [8, 9, 1], [0, 3, 5]]
    z = {side: F.normalize(value @ weight[side].T + bias[side]) for side, value in embedding.items()}
    args = (z["student"], z["teacher"], memory["student"], memory["teacher"], index, drawn, 0.07, 11)
    loss, z_student, z_teacher = crd.contrast(*args)
    arrays = {f"in.{side}_embedding": value for side, value in embedding.items()}
    arrays |= {f"crd.in.memory_{side}": value for side, value in memory.items()}
    for side, short in (("student", "s"), ("teacher", "t")):
        arrays |= {
            f"crd.param.embed_{short}.linear.weight": weight[side],
            f"crd.param.embed_{short}.linear.bias": bias[side],
        }
    contrasted = torch.tensor([[own, *others] for own, others in zip(index, drawn, strict=True)])
    arrays |= {"crd.in.index": torch.tensor(index), "crd.in.contrast_index": contrasted}
    arrays |= {f"crd.out.memory_{side}": crd.updated(memory[side], z[side], index, 0.5) for side in memory}
    params = torch.tensor([3, 0.07, z_student, z_teacher, 0.5], dtype=torch.float64)
    grad = torch.autograd.grad(loss, embedding["student"])[0]
    return {**arrays, "crd.loss": loss, "crd.grad.student_embedding": grad, "crd.out.params": params}


def test_other_banks(tmp_path: Path) -> None:
    store(tmp_path / "methods_other.npz", contrast())
    (case,) = check(tmp_path)
    assert case.ok and case.name == "crd", case


def test_a_weight_that_is_missing_and_one_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = boundaries("names")
    key = "ab.param.connector.connectors.1.conv.weight"
    store(tmp_path / "methods_wrong.npz", {**arrays, key: arrays[key] + 1e-3})
    store(tmp_path / "methods_missing.npz", {name: value for name, value in arrays.items() if name != key})
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "FAIL  has no ab.param.* for connectors.1.conv.weight" in out
    assert "FAIL  worst: ab." in out and "2 cases, 2 failed" in out
