"""Auxiliary classifiers: where they branch off the zoo's networks, and what they are made of."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from sskd.errors import UserError
from sskd.jobs.assemble import pair_of
from sskd.methods import METHODS
from sskd.methods.hsakd import Mimicry
from sskd.methods.plan import Optim, Pair, Plan
from sskd.models.mobilenet_v2 import InvertedResidual
from sskd.models.network import Network, create_network
from sskd.models.normalisation import Normalisation
from sskd.models.resnet import CifarNet, ResNet
from sskd.models.taps import parse_taps
from sskd.runs import SharedCache
from tests.oracles import hsakd
from tests.trainers import Kept, build, info

TEN = tuple("abcdefghij")


def network(name: str, side: int = 32, **taps: str) -> Network:
    torch.manual_seed(0)
    return create_network(name, TEN, (3, side, side), Normalisation((0.5,) * 3, (0.2,) * 3, "test"), parse_taps(taps))


def pair(student: str | Network, teacher: str | Network = "cifar_resnet8", side: int = 32) -> Pair:
    networks = [network(one, side) if isinstance(one, str) else one for one in (student, teacher)]
    return pair_of(networks[0], networks[1], replace(info(), class_names=TEN, image_shape=(3, side, side)))


def hsakd_of(given: Pair, **options: Any) -> Plan:
    return METHODS["hsakd"](given, epochs=240, optim=Optim(lr=0.1), **options)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


PUBLISHED = {
    "cifar_resnet20": {"stage1": 259_944, "stage2": 208_296, "stage3": 224_552},
    "cifar_wrn_16_2": {"stage1": 662_120, "stage2": 530_600, "stage3": 596_264},
    "cifar_vgg13": {"stem": 9_392_424, "stage1": 9_170_472, "stage2": 8_284_200, "stage4": 9_463_848},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_released(name: str) -> None:
    """With 10 classes, 40 joint labels."""
    with torch.device("meta"):
        backbone: Any = timm.create_model(name, num_classes=10)
        assert {tap: count(backbone.tail(tap, 40)) for tap in backbone.branch_taps} == PUBLISHED[name]


def test_both_sides_have_them() -> None:
    plan = hsakd_of(pair("cifar_resnet20", "cifar_resnet20"))
    term = plan.stages[1].loss["mimicry"][1]
    assert isinstance(term, Mimicry)
    for branches in (plan.modules["teacher_branches"], term.branches):
        assert {tap: count(branch) for tap, branch in branches.named_children()} == PUBLISHED["cifar_resnet20"]
    assert term.student_taps == term.teacher_taps == ("stage1", "stage2", "stage3")


@pytest.mark.parametrize(
    ("name", "widths", "blocks"),
    [
        ("cifar_resnet8", (16, 32, 64), 1),
        ("cifar_resnet56", (16, 32, 64), 9),
        ("cifar_resnet32x4", (64, 128, 256), 5),
        ("cifar_resnet14x05", (8, 16, 32), 2),
    ],
)
def test_parameters_of_residual_networks(name: str, widths: tuple[int, ...], blocks: int) -> None:
    backbone: Any = network(name).backbone
    found = [count(backbone.tail(tap, 4 * 10)) for tap in backbone.branch_taps]
    assert found == hsakd.branch_parameters(widths, blocks, 10)


LAST: dict[str, tuple[str, int, int]] = {  # the last stage's tap, its channels, the units of another such stage
    "cifar_resnet8x4": ("stage3", 256, 1),
    "cifar_wrn_40_1": ("stage3", 64, 6),
    "cifar_resnet50": ("stage4", 2048, 3),
    "cifar_vgg8": ("stage4", 512, 2),
    "cifar_mobilenet_v2": ("stage4", 160, 4),
    "cifar_shufflenet_v1": ("stage3", 960, 4),
    "cifar_shufflenet_v2": ("stage3", 464, 4),
}


@pytest.mark.parametrize("name", LAST)
def test_after_the_last_stage_comes_another_one_at_stride_1(name: str) -> None:
    backbone: Any = network(name).backbone
    tap, channels, units = LAST[name]
    assert backbone.branch_taps[-1] == tap and isinstance(backbone, CifarNet)
    again = backbone.repeated_stage().eval()
    convs = [one for one in again.modules() if isinstance(one, nn.Conv2d)]
    strided = [*convs, *(one for one in again.modules() if isinstance(one, nn.MaxPool2d | nn.AvgPool2d))]
    assert all(one.stride in (1, (1, 1)) for one in strided) and len(strided) == len(convs)
    assert not any(one.kernel_size == (1, 1) and one.in_channels == one.out_channels == channels for one in convs)
    kind = {"cifar_mobilenet_v2": InvertedResidual}.get(name)
    made = [*again] if isinstance(again, nn.Sequential) else [*getattr(again, "layer", ())]
    assert units == (sum(isinstance(one, kind) for one in again.modules()) if kind else len(made))
    maps = torch.rand(2, channels, 4, 4)
    assert again(maps).shape == maps.shape
    tail = backbone.tail(tap, 40).eval()
    assert repr(tail[0]) == repr(again) and tail(maps).shape == (2, 40)
    assert [type(one) for one in tail[1:-3]] == [type(backbone.get_submodule(one)) for one in backbone.after_stages]
    assert not any(
        torch.equal(p, q) for p, q in zip(again.parameters(), tail[0].parameters(), strict=True) if p.dim() > 1
    )


@pytest.mark.parametrize(("name", "side"), [*((name, 32) for name in LAST), ("cifar_vgg8", 64), ("cifar_wrn_16_1", 40)])
def test_branches_take_what_their_taps_give(name: str, side: int) -> None:
    net = network(name, side)
    shapes = net.shapes((3, side, side))
    for tap in net.branch_taps:
        branch = net.tail(tap, 40).eval()
        assert branch(torch.rand(1, *shapes[tap])).shape == (1, 40)


def test_the_network_itself_is_as_it_was() -> None:
    """Published checkpoints load: what a branch is made of is no part of the network."""
    assert count(network("cifar_resnet20").backbone) == 272_474
    for name in LAST:
        keys = [*network(name).backbone.state_dict()]
        assert not any("repeated" in key or "branch" in key for key in keys)


def test_stages_that_the_user_names() -> None:
    def taps(plan: Plan) -> list[tuple[str, str]]:
        term = plan.stages[1].loss["mimicry"][1]
        return [*zip(term.student_taps, term.teacher_taps, strict=True)]

    assert taps(hsakd_of(pair("cifar_mobilenet_v2", "cifar_vgg8")))[0] == ("stage1", "stem")
    assert taps(hsakd_of(pair("cifar_vgg8", "cifar_vgg8"), stages=("stage3", "stage4"))) == [
        ("stage3",) * 2,
        ("stage4",) * 2,
    ]
    with pytest.raises(UserError, match=r"student has 3 .*teacher has 4 \(stem \[64, 32, 32\].*\"stage1:stem\""):
        hsakd_of(pair("cifar_resnet8", "cifar_vgg8"))
    moved = network("cifar_resnet8", stage1="layer2")
    assert count(moved.tail("stage1", 40)) == count(network("cifar_resnet8").tail("stage2", 40))
    with pytest.raises(UserError, match=r"it is the input of layer2.*without :in"):
        network("cifar_resnet8", stage1="layer2:in").tail("stage1", 40)
    with pytest.raises(UserError, match=r"layer1\.0 cannot be copied; it can for stem, stage1"):
        network("cifar_resnet8", stage1="layer1.0").tail("stage1", 40)


def test_one_still_branches_before_the_last_stage() -> None:
    plan = METHODS["one"](pair("cifar_resnet8"), epochs=240, optim=Optim(lr=0.1))
    term: Any = plan.stages[0].loss["ensemble"][1]
    assert term.student_taps[0] == "stage2"
    assert [count(one) for one in term.branches] == [hsakd.branch_parameters((16, 32, 64), 1, 10)[1] - 30 * 65] * 2
    vgg: Any = METHODS["one"](pair("cifar_vgg8"), epochs=240, optim=Optim(lr=0.1)).stages[0].loss["ensemble"][1]
    assert vgg.student_taps[0] == "stage3"
    assert count(vgg.branches[0]) == count(network("cifar_vgg8").backbone.get_submodule("block4")) + 513 * 10


def test_branches_of_earlier_versions_are_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def address() -> Path:
        plan = hsakd_of(pair("cifar_resnet8"))
        modules = {name: str(module) for name, module in plan.modules.items()}
        return SharedCache(tmp_path, {"modules": modules}, tmp_path).path(plan.stages[0])

    now = address()
    assert address() == now
    with monkeypatch.context() as patch:
        patch.setattr(ResNet, "repeated_stage", lambda self: nn.Identity())
        assert address() != now, "another last branch"
    with monkeypatch.context() as patch:
        patch.setattr(CifarNet, "branch_taps", ("stage1", "stage3"))
        assert address() != now, "other places"


def test_checkpoints_of_earlier_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    method, old = partial(METHODS["hsakd"], branch_epochs=1), Kept()
    with monkeypatch.context() as patch:
        patch.setattr(ResNet, "repeated_stage", lambda self: nn.Identity())
        build(method, kept=old).fit()
    for state in old.saved:
        with pytest.raises(UserError, match=r"checkpoint's \w+ is not made as this version .* another --out"):
            build(method, kept=Kept(state)).fit()


@pytest.mark.parametrize("method", ["ab", "fsp"])
@pytest.mark.parametrize("name", ["cifar_wrn_16_1", "cifar_mobilenet_v2", "cifar_shufflenet_v2", "cifar_resnet8"])
def test_initialisation_leaves_what_follows_the_last_stage_alone(method: str, name: str) -> None:
    """As released: what is trained leads to the last stage; a final batch norm stays in eval, statistics and all."""
    kept = Kept()
    trainer = build(partial(METHODS[method], init_epochs=1), kept=kept, networks=(name, name), side=32)
    fresh = {key: value.clone() for key, value in trainer.student.backbone.state_dict().items()}
    trainer.fit()
    after = {"cifar_wrn_16_1": ("bn1",), "cifar_mobilenet_v2": ("conv2",), "cifar_shufflenet_v2": ("conv2", "bn2")}
    left, classifier = after.get(name, ()), ("fc.", "linear.", "classifier.")
    init, trained = (state["modules"]["student"] for state in kept.saved)
    for key, value in fresh.items():
        still = key.startswith((*(f"{one}." for one in left), *classifier))
        assert torch.equal(value, init[key]) == still, key
        assert not torch.equal(init[key], trained[key]) or key.endswith(".bias"), f"{key}: the next stage trains all"
