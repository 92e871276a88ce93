"""Terms on feature maps against slow oracles: value, gradients of the student's maps and of the adapters."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from sskd.methods import METHODS
from sskd.methods.ft import Factors, Reconstruction
from sskd.methods.kdsvd import candidates, nearest
from sskd.methods.plan import Optim, Pair, Plan, Term
from tests.oracles import ab, at, fitnet, fsp, ft, irg, kdsvd, nst, sp, vid
from tests.test_terms import batch_of, normal, same
from tests.trainers import info

Shape = tuple[int, int, int]
B = 3
# (channels, height, width) of three stages, shallow to deep. The student's are larger, smaller and as large.
STUDENT: tuple[Shape, ...] = ((4, 8, 8), (5, 3, 3), (6, 2, 2))
TEACHER: tuple[Shape, ...] = ((5, 4, 4), (4, 6, 6), (7, 2, 2))
Values = dict[str, Tensor]


def outputs(shapes: tuple[Shape, ...], seed: int, views: int = 1, size: int = B, zero: bool = False) -> Values:
    """A stem of the first stage's shape, stages, what comes before their activations, an embedding and logits."""
    named = {"stem": shapes[0], **{f"stage{i}": shape for i, shape in enumerate(shapes, 1)}}
    before = {f"{name}.pre": normal(seed + i, size, views, *shape) for i, (name, shape) in enumerate(named.items())}
    values = {name.removesuffix(".pre"): value.relu() * (0 if zero else 1) for name, value in before.items()}
    values |= {"pooled": normal(seed + 8, size, views, shapes[-1][0]), "logits": normal(seed + 9, size, views, 7)}
    return {name: value.detach() for name, value in {**values, **before}.items()}


def planned(method: str, student: Values, teacher: Values, **options: Any) -> Plan:
    shapes = [{name: tuple(value.shape[2:]) for name, value in side.items()} for side in (student, teacher)]
    torch.manual_seed(0)
    plan = METHODS[method](Pair(shapes[0], shapes[1], info()), epochs=1, optim=Optim(lr=0.1), **options)
    for module in (*plan.modules.values(), *(term for stage in plan.stages for _, term in stage.loss.values())):
        module.double().train()
    return plan


def term_of(plan: Plan, name: str, stage: int = -1) -> Term:
    return plan.stages[stage].loss[name][1]


def leaves(term: Term, student: Values) -> list[Tensor]:
    """What the loss is differentiated by: the student's values that the term reads, and its parameters."""
    return [*(student[tap].requires_grad_() for tap in term.student_taps), *term.parameters()]


def first(values: Values, taps: tuple[str, ...]) -> list[Tensor]:
    return [values[tap][:, 0] for tap in taps]


Slow = Callable[[list[Tensor], list[Tensor]], Tensor]
PLAIN: dict[str, tuple[str, int, Slow]] = {
    "at": ("at", -1, at.attention),
    "nst": ("nst", -1, lambda s, t: torch.stack([nst.squared_mmd(a, b) for a, b in zip(s, t, strict=True)]).sum()),
    "sp": ("sp", -1, lambda s, t: sp.similarity(s[0], t[0])),
}
SAME_WIDTHS: dict[str, tuple[str, int, Slow]] = {
    "fsp": ("fsp", 0, fsp.flow),
    "kdsvd": ("kdsvd", -1, kdsvd.rbf),
}


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("method", "name", "stage", "slow"), [(key, *value) for key, value in PLAIN.items()])
def test_methods_without_adapters(method: str, name: str, stage: int, slow: Slow, size: int, views: int) -> None:
    """Of unequal channels and sizes; of several views they read the first."""
    student, teacher = outputs(STUDENT, 1, views, size), outputs(TEACHER, 50, views, size)
    term = term_of(planned(method, student, teacher), name, stage)
    inputs = leaves(term, student)
    ours = term(student, teacher, batch_of(size, views))
    same(ours, slow(first(student, term.student_taps), first(teacher, term.teacher_taps)), inputs)
    if views == 2:
        assert all(not grad[:, 1].any() for grad in torch.autograd.grad(ours, inputs))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(("method", "name", "stage", "slow"), [(key, *value) for key, value in SAME_WIDTHS.items()])
def test_methods_that_need_equal_channels(method: str, name: str, stage: int, slow: Slow, size: int) -> None:
    sizes = tuple((c, h + 1, w + 1) for c, h, w in STUDENT) if method == "kdsvd" else ((4, 4, 4), (5, 6, 6), (6, 2, 2))
    student, teacher = outputs(STUDENT, 1, 1, size), outputs(sizes, 50, 1, size)
    term = term_of(planned(method, student, teacher), name, stage)
    inputs = leaves(term, student)
    slowly = slow(first(student, term.student_taps), first(teacher, term.teacher_taps))
    same(term(student, teacher, batch_of(size, 1)), slowly, inputs)


@pytest.mark.parametrize("method", [*PLAIN, *SAME_WIDTHS, "vid", "ft"])
def test_dead_maps_have_finite_gradients(method: str) -> None:
    student, teacher = outputs(STUDENT, 1, zero=True), outputs(STUDENT, 50)
    plan = planned(method, student, teacher)
    term = term_of(plan, method, 0 if method == "fsp" else -1).float()
    for module in plan.modules.values():
        module.float()
    student, teacher = ({name: value.float() for name, value in side.items()} for side in (student, teacher))
    inputs = leaves(term, student)
    loss = term(student, teacher, batch_of(B, 1))
    grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    assert loss.isfinite() and all(grad.isfinite().all() for grad in grads if grad is not None)


@pytest.mark.parametrize("positions", [6, 9])
def test_kdsvd_chooses_among_four_directions(positions: int) -> None:
    """Of a map whose directions are the channels themselves, in this order."""
    maps = torch.zeros(1, 7, positions, 1, dtype=torch.float64)
    for i in range(6):
        maps[0, i, i] = 6.0 - i
    axes = torch.eye(7, dtype=torch.float64)
    found = candidates(maps)
    torch.testing.assert_close(found[0].abs(), axes[[3, 2, 1, 0]])
    for i in range(6):
        taken = nearest(found, (0.5 * axes[0] - axes[i])[None])[0]  # the fifth and sixth are not there to be taken
        torch.testing.assert_close(taken, -axes[i] if 0 < i < 4 else taken[0].sign() * axes[0])


def test_vid() -> None:
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 50)
    term = term_of(planned("vid", student, teacher, variance=2.0), "vid")
    layers = cast(nn.ModuleList, term.get_submodule("loss.layers"))
    inputs = leaves(term, student)
    slow = torch.zeros((), dtype=torch.float64)
    for layer, s, t in zip(layers, first(student, term.student_taps), first(teacher, term.teacher_taps), strict=True):
        s_small, t_small = at.same_size(s, t)
        mean = s_small
        for i in (0, 2, 4):
            weight = layer.regressor[i].weight[:, :, 0, 0]  # type: ignore[index, operator, union-attr]
            mean = torch.einsum("dc,bchw->bdhw", weight, mean).clamp(min=0 if i < 4 else -1e9)
        slow = slow + vid.information(mean, t_small, cast(Tensor, layer.log_scale))
    same(term(student, teacher, batch_of(B, 1)), slow, inputs)
    variances = [nn.functional.softplus(cast(Tensor, layer.log_scale)) + 1e-5 for layer in layers]
    assert all(torch.allclose(value, torch.tensor(2.0, dtype=torch.float64), atol=1e-5) for value in variances)


REGRESSORS: dict[str, tuple[Shape, Shape, dict[str, Any]]] = {
    "strided": ((3, 8, 8), (4, 4, 4), {"kernel_size": (3, 3), "stride": (2, 2), "padding": (1, 1)}),
    "transposed": ((3, 4, 4), (4, 8, 8), {"kernel_size": (4, 4), "stride": (2, 2), "padding": (1, 1)}),
    "square": ((3, 5, 6), (4, 4, 4), {"kernel_size": (2, 3), "stride": (1, 1), "padding": (0, 0)}),
    "equal": ((3, 4, 4), (3, 4, 4), {"kernel_size": (1, 1), "stride": (1, 1), "padding": (0, 0)}),
    "pooled": ((3, 4, 4), (4, 6, 6), {"kernel_size": (1, 1), "stride": (1, 1), "padding": (0, 0)}),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_fitnet(name: str) -> None:
    student_shape, teacher_shape, expected = REGRESSORS[name]
    student, teacher = (
        {"stage2": normal(seed, B, 1, *shape)} for seed, shape in ((1, student_shape), (2, teacher_shape))
    )
    term = term_of(planned("fitnet", student, teacher), "hint")
    regressor: Any = term.get_submodule("loss.regressor")
    conv = regressor.conv
    assert {key: getattr(conv, key) for key in expected} == expected
    assert isinstance(conv, nn.ConvTranspose2d) == (name == "transposed")
    inputs = leaves(term, student)
    y = conv(student["stage2"][:, 0])
    mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), keepdim=True, unbiased=False)
    norm = regressor.bn
    y = ((y - mean) / (variance + 1e-5).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)).relu()
    slow = fitnet.hint(*at.same_size(y, teacher["stage2"][:, 0]))
    same(term(student, teacher, batch_of(B, 1)), slow, [one for one in inputs if one is not conv.bias])


def test_ab() -> None:
    shapes = (TEACHER[0], STUDENT[1], TEACHER[2])  # the first and the last need no connector
    student, teacher = outputs(shapes, 1), outputs(TEACHER, 50)
    teacher["stage1.pre"][0, 0, 0, 0] = 0.0  # not active
    term = term_of(planned("ab", student, teacher, margin=0.7), "ab", 0)
    connectors = cast(nn.ModuleList, term.get_submodule("loss.connectors"))
    assert [isinstance(connector, nn.Identity) for connector in connectors] == [True, False, True]
    inputs = leaves(term, student)
    connected = [one(s) for one, s in zip(connectors, first(student, term.student_taps), strict=True)]
    slow = ab.boundary(connected, first(teacher, term.teacher_taps), 0.7)
    same(term(student, teacher, batch_of(B, 1)), slow, inputs)


def test_ft() -> None:
    student, teacher = outputs(STUDENT, 1), outputs((*TEACHER[:2], (7, 4, 4)), 50)
    plan = planned("ft", student, teacher, rate=0.6)
    coder: Any = plan.modules["paraphraser"]
    assert coder.encoder[6].out_channels == 4
    original = teacher["stage3"][:, 0]
    task = cast(Reconstruction, term_of(plan, "reconstruction", 0))
    slow = ft.reconstruction(coder.decoder(coder.encoder(original)), original)
    same(task({}, teacher, batch_of(B, 1)), slow, [*coder.parameters()])
    term = cast(Factors, term_of(plan, "ft"))
    inputs = leaves(term, student)
    factors = term.translator.encoder(student["stage3"][:, 0]), coder.encoder(original).detach()
    weights = [one for one in inputs if one.ndim != 1]  # batch norm takes the gradient of a bias before it to nothing
    same(term(student, teacher, batch_of(B, 1)), ft.factor(*at.same_size(*factors)), weights)


def test_irg_on_maps() -> None:
    student = outputs(((4, 8, 8), (4, 4, 4), (8, 2, 2)), 1)
    teacher = outputs(((4, 8, 8), (6, 4, 4), (12, 2, 2)), 50)
    plan = planned("irg", student, teacher)
    for name, slow in (
        (
            "edge",
            lambda s, t: irg.edge([s["stage2"], s["stage3"], s["pooled"]], [t["stage2"], t["stage3"], t["pooled"]]),
        ),
        ("transformation", lambda s, t: irg.transformation(s["stage2"], s["stage3"], t["stage2"], t["stage3"])),
        ("vertex", lambda s, t: irg.vertex(s["logits"], t["logits"])),
    ):
        term = term_of(plan, name)
        inputs = leaves(term, student)
        views = [{tap: value[:, 0] for tap, value in side.items()} for side in (student, teacher)]
        same(term(student, teacher, batch_of(B, 1)), cast(Any, slow)(*views), inputs)
