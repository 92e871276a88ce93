"""What a network's taps know is kept when it is wrapped, named by the user or found by name."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.models.network import Network, create_network
from sskd.models.normalisation import Normalisation
from sskd.models.taps import Tap, Tapped, parse_taps
from tests.trainers import batch_at, build, steps_of

NAMES, PLAIN = tuple("abcd"), Normalisation((0.5,) * 3, (0.25,) * 3, "the test")
LAST = "test_mambaout"  # of timm: maps are [H, W, C], but for those inside its convolutions


def wrapped(backbone: nn.Module, **taps: str) -> Network:
    return Network("own", backbone, PLAIN, NAMES, taps=parse_taps(taps))


def test_stages_with_channels_last_are_read_channels_first() -> None:
    network = create_network(LAST, NAMES, (3, 32, 32), PLAIN)
    for kept in (network, network.fitted(NAMES[::-1], (3, 2, 1, 0), {})):
        assert (
            kept.shapes((3, 32, 32)).items()
            >= {"stage1": (16, 8, 8), "stage2": (32, 4, 4), "stage3": (48, 2, 2)}.items()
        )
    swin: Any = SwinTransformer([4, 4], 8, [1, 1], [1, 1], [2, 2], num_classes=4)
    assert (
        wrapped(swin).shapes((3, 32, 32)).items()
        >= {"stem": (8, 8, 8), "stage1": (8, 8, 8), "stage2": (16, 4, 4)}.items()
    )


def test_attention_transfer_compares_positions() -> None:
    """Over an epoch of AT: the mean squared difference of attention over positions, from the modules' own outputs."""
    trainer = build(METHODS["at"], networks=(LAST, LAST), side=64)
    networks: tuple[Any, Any] = (trainer.student.backbone, trainer.teacher.backbone)  # type: ignore[union-attr]
    seen: list[list[Tensor]] = [[], []]
    for network, values in zip(networks, seen, strict=True):
        for stage in network.stages:
            stage.register_forward_hook(lambda _, __, output, values=values: values.append(output.detach()))
    run, step, _ = next(steps_of(trainer))
    for i in range(2):
        for values in seen:
            values.clear()
        loss = step(batch_at(run, i)).terms["at"]
        expected = torch.zeros(())
        for student, teacher in zip(*seen, strict=True):  # [N, H, W, C]
            one, other = (nn.functional.normalize(maps.square().mean(3).flatten(1)) for maps in (student, teacher))
            expected += (one - other).square().mean()
        torch.testing.assert_close(loss.detach(), expected)
        assert [maps.shape[1] * maps.shape[2] for maps in seen[0]] == [256, 64, 16, 4]


def test_named_taps_are_turned_as_their_shapes_show() -> None:
    taps = {"inner": "stages.1.blocks.0.fc2", "convolution": "stages.1.blocks.0.conv", "stage1": "stages.0"}
    network = wrapped(timm.create_model(LAST, num_classes=4), **taps)
    shapes = network.shapes((3, 64, 64))
    assert shapes["inner"] == (32, 8, 8) and shapes["convolution"] == (32, 8, 8) and shapes["stage1"] == (16, 16, 16)
    assert network.taps["stage1"].channels_last, "as is known of the same module"
    assert network.tap_notes == (
        "In own the maps of inner have their channels last, as their shapes show: they are read channels first.",
    )
    tapped, seen = Tapped(network.eval(), network.taps, ("inner",)), list[Tensor]()
    network.backbone.get_submodule("stages.1.blocks.0.fc2").register_forward_hook(lambda _, __, y: seen.append(y))
    values = tapped(torch.rand(2, 3, 64, 64))["inner"]
    torch.testing.assert_close(values, seen[0].permute(0, 3, 1, 2))


def test_a_shape_that_fits_both_is_asked_for() -> None:
    place = "stages.0.blocks.0.fc2"  # 16 x 16 x 16
    model = timm.create_model(LAST, num_classes=4).eval()
    with pytest.raises(UserError, match=rf"x: {place}:out:channels_first or x: {place}:out:channels_last"):
        wrapped(model, x=place).shapes((3, 64, 64))
    seen = list[Tensor]()
    model.get_submodule(place).register_forward_hook(lambda _, __, output: seen.append(output))
    images = torch.rand(1, 3, 64, 64)
    for layout, turned in (("channels_last", True), ("channels_first", False)):
        network = wrapped(model, x=f"{place}:out:{layout}")
        assert network.shapes((3, 64, 64))["x"] == (16, 16, 16)
        values = Tapped(network, network.taps, ("x",))(images)["x"]
        torch.testing.assert_close(values, seen[-1].permute(0, 3, 1, 2) if turned else seen[-1])


class Block(nn.Module):
    """One activation for two layers, as torchvision's blocks have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, channels, 3, 1, 1), nn.Conv2d(channels, channels, 3, 1, 1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.act(x + self.second(self.act(self.first(x))))
        return found


class Layers(nn.Module):
    """`layer3` is a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Sequential(Block(6))
        self.layer3, self.fc = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layer3(self.layer2(self.layer1(x)).mean((2, 3))))
        return logits


class Staged(nn.Module):
    """`stages` inside of another module, with channels last."""

    class Turned(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"stages": nn.Sequential(self.Turned(3, 6, 3, 2, 1), self.Turned(6, 9, 3, 2, 1))})
        self.fc = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.body["stages"](x.permute(0, 2, 3, 1)).mean((1, 2)))
        return logits


def test_stages_are_found_by_name_and_said() -> None:
    network = wrapped(Layers())
    shapes = network.shapes((3, 8, 8))
    assert {name: shape for name, shape in shapes.items() if name.startswith("stage") and "." not in name} == {
        "stage1": (6, 4, 4),
        "stage2": (6, 4, 4),
    }
    assert network.left_out["stage3"] == "backbone.layer3 of own gives vectors, so it is no stage."
    assert network.tap_notes[0].startswith(
        "The stages of own are taken by the names of its modules: stage1 is layer1, stage2"
    )
    named = wrapped(Layers(), stage1="layer2")
    assert named.shapes((3, 8, 8)).keys() >= {"stage1"} and "stage2" not in named.taps and not named.tap_notes
    staged = wrapped(Staged())
    assert staged.shapes((3, 8, 8)).items() >= {"stage1": (6, 4, 4), "stage2": (9, 2, 2)}.items()
    assert (
        "stage1 is body.stages.0, stage2 is body.stages.1" in staged.tap_notes[0]
        and "channels last" in staged.tap_notes[1]
    )


def test_the_last_of_several_times_counts_where_it_is_said() -> None:
    with pytest.raises(UserError, match=r"fired 2 times .* or write MODULE:again if its last time counts"):
        wrapped(Layers(), **{"stage2.pre": "layer2.0.act:in"}).shapes((3, 8, 8))
    network = wrapped(Layers(), **{"stage2.pre": "layer2.0.act:in:again"}, stage2="layer2").eval()
    assert network.shapes((3, 8, 8))["stage2.pre"] == (6, 4, 4)
    values = Tapped(network, network.taps, ("stage2", "stage2.pre"))(torch.rand(2, 3, 8, 8))
    assert (values["stage2.pre"] < 0).any()
    torch.testing.assert_close(values["stage2.pre"].relu(), values["stage2"])


@pytest.mark.parametrize(
    ("text", "tap"),
    [
        ("a.b", Tap("a.b")),
        ("a:in:channels_last", Tap("a", "in", channels_last=True)),
        ("a:channels_first", Tap("a", channels_last=False)),
        ("a:out:again", Tap("a", again=True)),
    ],
)
def test_written_taps(text: str, tap: Tap) -> None:
    assert parse_taps({"x": text}) == {"x": tap}


@pytest.mark.parametrize("text", ["a:up", ":in", "a:in:out", "a:channels_last:channels_first", ""])
def test_taps_that_are_not_understood(text: str) -> None:
    with pytest.raises(UserError, match=r"not understood. Write NAME: MODULE"):
        parse_taps({"x": text})


def test_fitted_twice_selects_of_what_was_selected() -> None:
    network = create_network("cifar_resnet8", NAMES, (3, 8, 8), PLAIN).eval()
    images = torch.rand(2, 3, 8, 8)
    twice = network.fitted(("d", "b", "a"), (3, 1, 0), {}).fitted(("a", "d"), (2, 0), {})
    torch.testing.assert_close(twice(images), network(images)[:, [0, 3]])
