"""The cases of the golden vectors, computed by the package: which of our code answers for which published number.

A family of files is one entry of `FAMILIES`, a method one of `METHOD_CHECKS`. Everything is computed in float64, by the
code that training runs. `tests.golden` compares.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from sskd.data.batches import Resident
from sskd.methods import METHODS
from sskd.methods.plan import Optim, Pair
from sskd.methods.sskd import Similarity, Transformed
from sskd.models.network import Network, create_network
from sskd.models.normalisation import Normalisation
from sskd.models.taps import Tapped
from sskd.models.zoo import PUBLISHED
from sskd.train.loop import Data, Schedule, StageRun, Trainer
from sskd.train.optim import build_optimizer
from sskd.train.step import Execution, Step
from tests.oracles.published_methods import METHOD_CHECKS
from tests.oracles.stored import METHOD_KEY, Family, Golden, Results, batch_of, facts, rnd

FP64 = Execution(precision="fp64")


@torch.no_grad()
def fill(module: nn.Module, salt: str) -> None:
    """Draw every tensor from its name."""
    for key, tensor in module.state_dict().items():
        r, shape = np.random.RandomState(zlib.crc32((salt + key).encode())), tuple(tensor.shape)
        if key.endswith("num_batches_tracked"):
            continue
        if key.endswith("running_var"):
            value = r.uniform(0.5, 1.5, shape)
        elif key.endswith("running_mean"):
            value = 0.1 * r.standard_normal(shape)
        elif len(shape) >= 2:
            value = r.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif key.endswith("weight"):
            value = r.uniform(0.5, 1.5, shape)
        else:
            value = 0.1 * r.standard_normal(shape)
        tensor.copy_(torch.as_tensor(value))


def network(name: str, classes: int, channels: int, salt: str) -> Network:
    """A filled network of the zoo, without normalisation, in float64."""
    plain = Normalisation((0.0,) * channels, (1.0,) * channels, "golden")
    made = create_network(PUBLISHED[name], tuple(map(str, range(classes))), (channels, 32, 32), plain).double()
    fill(made if salt else made.backbone, salt)
    return made.eval()


def _models(golden: Golden) -> Iterator[tuple[str, Callable[[], Results]]]:
    for name in PUBLISHED:
        if any(key.startswith(f"{name}.") for key in golden.arrays):
            yield name, partial(_model, golden, name)


@torch.no_grad()
def _model(golden: Golden, name: str) -> Results:
    images = golden.tensor("input")
    logits = [key for key in (f"{name}.logits", f"{name}.train_logits") if key in golden.arrays]
    ours = network(name, golden.array(logits[0]).shape[1] if logits else 100, images.shape[1], "")
    order = ("stem", *sorted(tap for tap in ours.taps if re.fullmatch(r"stage\d+", tap)), "pooled")
    tapped = Tapped(ours, ours.taps, order)
    values = tapped(images)
    tapped.close()
    results = {f"{name}.logits": values["logits"], f"{name}.features": values["pooled"]}
    for i, tap in enumerate(order):
        at = f"{name}.f{i}"
        results |= {f"{at}.mean": values[tap].mean(), f"{at}.std": values[tap].std(), f"{at}.shape": values[tap].shape}
    if f"{name}.train_logits" in golden.arrays:
        results[f"{name}.train_logits"] = ours.train()(images)
    return results


def _losses(golden: Golden) -> Iterator[tuple[str, Callable[[], Results]]]:
    for case in dict.fromkeys(key.split(".")[0] for key in golden.arrays if re.match(r"\d+\.", key)):
        yield case, partial(_loss, golden, case)


def _loss(golden: Golden, case: str) -> Results:
    labels = golden.tensor(f"{case}.target")
    read = {
        (side, tap): golden.tensor(f"{case}.{side}_{key}").unflatten(0, (len(labels), -1))
        for side in ("student", "teacher")
        for tap, key in (("logits", "logits"), ("pooled", "repr"))
    }
    student, teacher = ({tap: read[side, tap] for tap in ("logits", "pooled")} for side in ("student", "teacher"))
    leaves = [value.requires_grad_() for value in student.values()]
    batch = batch_of(torch.zeros(*student["logits"].shape[:2], 3, 1, 1), labels)
    ratios = {f"ratio_{term}": golden.number(f"{case}.ratio_{term}") for term in ("ss", "tf")}
    student_shapes, teacher_shapes = (
        {tap: tuple(value.shape[2:]) for tap, value in side.items()} for side in (student, teacher)
    )
    pair = Pair(student_shapes, teacher_shapes, facts(student["logits"].shape[-1], labels, (3, 1, 1)))
    loss = METHODS["sskd"](pair, epochs=1, optim=Optim(), **ratios).stages[-1].loss
    tf, ss = cast(Transformed, loss["tf"][1]), cast(Similarity, loss["ss"][1])
    ss.head, ss.borrowed = nn.Identity(), (nn.Identity(),)  # the stored representations are outputs of heads
    values = {name: term(student, teacher, batch) for name, (_, term) in loss.items()}
    total = torch.stack([weight * values[name] for name, (weight, _) in loss.items()]).sum()
    grads = [grad.flatten(0, 1) for grad in torch.autograd.grad(total, leaves)]
    similarity = ss.pretext.logits(teacher["pooled"])
    kept = {"kept_tf": tf._kept(teacher, batch), "kept_ss": ss._kept(similarity, batch)}
    kept = {name: mask.nonzero()[:, 0] for name, mask in kept.items()}
    gradients = dict(zip(("grad_student_logits", "grad_student_repr"), grads, strict=True))
    return {f"{case}.{key}": value for key, value in {**values, **kept, **gradients}.items()}


def _trajectories(golden: Golden) -> Iterator[tuple[str, Callable[[], Results]]]:
    pair = golden.array("pair").tolist()
    if set(pair) <= set(PUBLISHED):
        yield "->".join(pair), partial(_trajectory, golden)


def _trajectory(golden: Golden) -> Results:
    n, classes, rate = (golden.number(key) for key in ("n", "num_classes", "student_lr"))
    size, names, shape = int(n), golden.array("pair").tolist(), (3, 32, 32)
    teacher, student = (network(name, int(classes), 3, salt) for name, salt in zip(names, ("t:", "s:"), strict=True))
    pair = Pair(student.shapes(shape), teacher.shapes(shape), facts(int(classes), torch.zeros(size), shape))
    plan = METHODS["sskd"](pair, epochs=1, optim=Optim(lr=rate), ratio_ss=0.75, ratio_tf=1.0)
    fill(plan.modules["teacher_head"].double(), "t:proj_head.")
    fill(cast(Similarity, plan.stages[1].loss["ss"][1]).head.double(), "s:proj_head.")
    nothing = Resident(torch.zeros(0, *shape), torch.zeros(0))
    nobody = cast(Any, None)  # keeper, cache and listener are not reached: the steps are made here
    data = Data(nothing, nothing, {})
    trainer = Trainer(student, teacher, plan, data, Schedule(size, 0), FP64, nobody, nobody, nobody)
    results: dict[str, Tensor] = {}
    for stage, prefix, seed in zip(plan.stages, ("head", "student"), (100, 200), strict=True):
        steps = {int(key.split(".")[2]) for key in golden.arrays if re.fullmatch(prefix + r"\.\w+\.\d+", key)}
        run, step = StageRun(trainer, stage), Step(stage, student, teacher, FP64)
        parameters = [parameter for module in run.enter() for parameter in module.parameters()]
        optimizer = build_optimizer(parameters, stage.optim)
        for i in range(max(steps, default=-1) + 1):
            labels = torch.from_numpy(np.random.RandomState(300 + i).randint(0, int(classes), size))
            losses = step(batch_of(rnd(seed + i, size, 4, *shape), labels))
            optimizer.zero_grad(set_to_none=True)
            losses.total.backward()
            optimizer.step()
            terms = {"loss": losses.total} if prefix == "head" else {**losses.terms, "total": losses.total}
            results |= {f"{prefix}.{name}.{i}": value for name, value in terms.items()}
        step.close()
    with torch.no_grad():
        results["student.final_logits"] = student.eval()(rnd(999, 4, *shape))
    return results


def _methods(golden: Golden) -> Iterator[tuple[str, Callable[[], Results]]]:
    found = (METHOD_KEY.match(key) for key in golden.arrays)
    for name in dict.fromkeys(match[1] for match in found if match):
        for pattern, check in METHOD_CHECKS.items():
            if match := re.fullmatch(pattern, name):
                yield name, partial(_prefixed, name, check, golden, match)


def _prefixed(name: str, check: Callable[[Golden, re.Match[str]], Results], *given: Any) -> Results:
    return {f"{name}.{key}": value for key, value in check(*given).items()}


FAMILIES: dict[str, Family] = {
    "models_": _models,
    "sskd_loss_": _losses,
    "sskd_trajectory_": _trajectories,
    "methods_": _methods,  # methods_later_ too
}
