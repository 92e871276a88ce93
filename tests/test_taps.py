"""Taps of networks of three origins: the values that they name, and what is refused."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.models.find import find_taps
from sskd.models.network import Network
from sskd.models.normalisation import Normalisation
from sskd.models.taps import Tap, Tapped, probe, usable

IMAGE = torch.zeros(1, 3, 32, 32)


def walk(x: Tensor, **parts: nn.Module) -> dict[str, Tensor]:
    """The values after each of the parts, one after the other; parts named `_...` are not kept."""
    values = {}
    for name, part in parts.items():
        x = part(x)
        if not name.startswith("_"):
            values[name] = x.clone()
    return values | {"last": x}


def stages(*parts: nn.Module) -> dict[str, nn.Module]:
    return {f"stage{i}": part for i, part in enumerate(parts, 1)}


def with_head(model: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
    last = values.pop("last")
    return values | {"pooled": model.forward_head(last, pre_logits=True), "logits": model.forward_head(last)}


def resnet10t(m: Any, x: Tensor) -> dict[str, Tensor]:
    before = {"_conv": m.conv1, "_bn": m.bn1, "stem": m.act1, "_pool": m.maxpool}
    return with_head(m, walk(x, **before, **stages(m.layer1, m.layer2, m.layer3, m.layer4)))


def mobilenetv3(m: Any, x: Tensor) -> dict[str, Tensor]:
    b = m.blocks
    parts = {"_0": m.conv_stem, "stem": m.bn1, "stage1": b[0], "stage2": b[1], "_2": b[2], "stage3": b[3], "_4": b[4]}
    return with_head(m, walk(x, **parts, stage4=b[5]))


def convnext(m: Any, x: Tensor) -> dict[str, Tensor]:
    values = walk(x, _stem=m.stem, **stages(*m.stages))
    return with_head(m, values | {"last": m.norm_pre(values["last"])})


def vit(m: Any, x: Tensor) -> dict[str, Tensor]:
    tokens = torch.cat([m.cls_token.expand(len(x), -1, -1), m.patch_embed(x)], 1) + m.pos_embed
    values = walk(tokens, **stages(*m.blocks))
    return with_head(m, values | {"last": m.norm(values["last"])})


def resnet18(m: Any, x: Tensor) -> dict[str, Tensor]:
    before = {"_conv": m.conv1, "_bn": m.bn1, "stem": m.relu, "_pool": m.maxpool}
    values = walk(x, **before, **stages(m.layer1, m.layer2, m.layer3, m.layer4))
    pooled = values.pop("last").mean((2, 3))
    return values | {"pooled": pooled, "logits": m.fc(pooled)}


def torchvision_resnet18() -> nn.Module:
    model: nn.Module = torchvision.models.resnet18(num_classes=5)
    return model


Hand = Callable[[Any, Tensor], dict[str, Tensor]]
NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], Hand, dict[str, tuple[int, ...]]]] = {
    "resnet10t": (
        lambda: timm.create_model("resnet10t", num_classes=5),
        resnet10t,
        {"stem": (64, 16, 16), "stage1": (64, 8, 8), "stage4": (512, 1, 1), "pooled": (512,)},
    ),
    "mobilenetv3_small_050": (
        lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
        mobilenetv3,
        {"stem": (16, 16, 16), "stage1": (8, 8, 8), "stage4": (288, 1, 1), "pooled": (1024,)},
    ),
    "convnext_atto": (
        lambda: timm.create_model("convnext_atto", num_classes=5),
        convnext,
        {"stage1": (40, 8, 8), "stage2": (80, 4, 4), "stage4": (320, 1, 1), "pooled": (320,)},
    ),
    "vit": (
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=5),
        vit,
        {"stage1": (5, 192), "stage3": (5, 192), "pooled": (192,)},
    ),
    "torchvision resnet18": (
        torchvision_resnet18,
        resnet18,
        {"stem": (64, 16, 16), "stage1": (64, 8, 8), "stage4": (512, 1, 1), "pooled": (512,)},
    ),
}


def plain(taps: dict[str, Tap]) -> dict[str, Tap]:
    """Without the values before activations."""
    return {name: tap for name, tap in taps.items() if not name.endswith(".pre")}


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_those_computed_by_hand(name: str) -> None:
    torch.manual_seed(0)
    make, by_hand, some_shapes = NETWORKS[name]
    model, images = make().eval(), torch.randn(2, 3, 32, 32)
    taps = plain(find_taps(model))
    with torch.no_grad():
        expected = by_hand(model, images)
    tapped = Tapped(model, taps, (*taps, "logits"))
    found = tapped(images)
    assert found.keys() == expected.keys() == {*taps, "logits"}
    for tap, value in expected.items():
        torch.testing.assert_close(found[tap], value, msg=tap)
    shapes = probe(model, taps, IMAGE)
    assert shapes == {tap: tuple(value.shape[1:]) for tap, value in expected.items()}
    assert some_shapes.items() <= shapes.items()
    assert found["pooled"].requires_grad
    tapped.close()
    assert not hooks(model) and tapped(images).keys() == {"logits"}


def test_only_what_is_asked_is_kept() -> None:
    model = timm.create_model("resnet10t", num_classes=5)
    tapped = Tapped(model, find_taps(model), ("stage2", "logits"))
    assert hooks(model) == 1
    assert tapped(torch.randn(2, 3, 32, 32)).keys() == {"stage2", "logits"}
    assert not tapped._store
    other = Tapped(model, find_taps(model), ("pooled",))
    model(torch.randn(2, 3, 32, 32))  # by itself: nothing of it is kept for later
    tapped.close()
    assert not tapped._store and tapped(torch.randn(2, 3, 32, 32)).keys() == {"logits"}
    assert other(torch.randn(2, 3, 32, 32)).keys() == {"pooled", "logits"}
    other.close()
    assert not hooks(model)


def test_probe_leaves_the_network_as_it_was() -> None:
    model = torchvision_resnet18()
    model.train()
    model.get_submodule("layer2").eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    probe(model, plain(find_taps(model)), IMAGE)
    for tap in (Tap("bn1"), Tap("nowhere")):
        with pytest.raises(UserError):
            probe(model, {"wrong": tap}, IMAGE)
    with pytest.raises(RuntimeError):
        probe(model, plain(find_taps(model)), torch.zeros(1, 5, 32, 32))
    assert modes == [module.training for module in model.modules()] and not hooks(model)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


class Odd(nn.Module):
    """Reads nothing of `unused`; `lstm` returns a tuple, `turned` has the batch elsewhere, `twice` runs twice."""

    def __init__(self, returns: str = "logits") -> None:
        super().__init__()
        self.unused = nn.Conv2d(3, 3, 1)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.turned = nn.Identity()
        self.twice = nn.Identity()
        self.scalar = nn.Identity()
        self.fc = nn.Linear(4, 5)
        self.returns = returns

    def forward(self, images: Tensor) -> Any:
        x, _ = self.lstm(images.flatten(2).transpose(1, 2))
        self.turned(x.transpose(0, 1))
        self.scalar(x.mean())
        logits = self.fc(self.twice(self.twice(x)).mean(1))
        return {"logits": logits, "tuple": (logits, x), "map": logits[:, :, None]}[self.returns]


@pytest.mark.parametrize(
    ("model", "tap", "message"),
    [
        (torchvision_resnet18(), Tap("bn1"), r"output of bn1\) is overwritten in place"),
        (torchvision_resnet18(), Tap("layer1.0.relu"), "fired 2 times in one forward pass; it must fire once"),
        (torchvision_resnet18(), Tap("layer5"), r"tap x\) named 'layer5'. Did you mean 'layer4'"),
        (Odd(), Tap("unused"), "fired 0 times"),
        (Odd(), Tap("twice"), "fired 2 times"),
        (Odd(), Tap("lstm"), "is a tuple; a tensor with the batch"),
        (Odd(), Tap("turned"), r"is a tensor of shape \(1024, 1, 4\); a tensor with the batch"),
        (Odd(), Tap("scalar"), r"is a tensor of shape \(\); a tensor with the batch"),
        (Odd("tuple"), Tap("fc", "in"), "Odd must return one tensor of logits .* it returned a tuple"),
        (Odd("map"), Tap("fc", "in"), r"it returned a tensor of shape \(1, 5, 1\)"),
    ],
)
def test_refused_taps(model: nn.Module, tap: Tap, message: str) -> None:
    with pytest.raises(UserError, match=message):
        probe(model, {"x": tap}, IMAGE)
    assert not hooks(model)


def test_unknown_tap_offers_near_ones() -> None:
    model = torchvision_resnet18()
    with pytest.raises(UserError, match=r"There is no tap of ResNet named 'stage5'\. Did you mean 'stage"):
        Tapped(model, find_taps(model), ("stage1", "stage5"))
    assert not hooks(model)


class ConvClassifier(nn.Module):
    """A linear layer inside, none at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Linear(3, 3)
        self.classifier = nn.Conv2d(3, 5, 1)
        self.out = nn.Softmax(1)

    def forward(self, images: Tensor) -> Tensor:
        gate = self.squeeze(images.mean((2, 3)))[:, :, None, None]
        return self.out(self.classifier(images * gate).mean((2, 3)))


def test_no_pooled_without_a_linear_classifier() -> None:
    headless = find_taps(timm.create_model("resnet10t", num_classes=0))
    assert "pooled" not in headless and "stage4" in headless
    assert find_taps(torchvision.models.squeezenet1_1(num_classes=5)) == {}
    shapes, left_out, _ = usable(timm.create_model("resnet10t", num_classes=5), {"pooled": Tap("layer4")}, IMAGE)
    assert "pooled" not in shapes and "the classifier is convolutional" in left_out["pooled"]
    gone, reasons, _ = usable(timm.create_model("resnet10t", num_classes=5), {"stage9": Tap("layer9")}, IMAGE)
    assert [*gone] == ["logits"] and "no module of ResNet (for tap stage9) named 'layer9'. Did you mean" in reasons[
        "stage9"
    ]
    assert find_taps(ConvClassifier()) == {}
    assert find_taps(Odd()) == {"pooled": Tap("fc", "in")}
    assert find_taps(torchvision.models.mobilenet_v2(num_classes=5)) == {"pooled": Tap("classifier.1", "in")}


def test_declared_taps_come_first() -> None:
    model = timm.create_model("cifar_resnet8", num_classes=5)
    assert find_taps(model) == model.taps
    assert "stage1.pre" in model.taps


def test_network() -> None:
    plain = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "test")
    network = Network("resnet10t", timm.create_model("resnet10t", num_classes=5).eval(), plain, tuple("abcde"))
    assert network.taps["stage1"] == Tap("backbone.layer1") and network.taps["pooled"] == Tap("backbone.fc", "in")
    assert network.shapes((3, 32, 32))["stage1"] == (64, 8, 8)
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (plain.mean, plain.std))
    with torch.no_grad():
        torch.testing.assert_close(network(images), network.backbone((images - mean) / std))
    assert all(key.startswith("backbone.") for key in network.state_dict())
    with pytest.raises(UserError, match="resnet10t takes images of 3 channels; the data has 4"):
        network.shapes((4, 32, 32))
    with pytest.raises(UserError, match="resnet10t gives 5 logits for 4 classes"):
        Network("resnet10t", network.backbone, plain, tuple("abcd")).shapes((3, 32, 32))
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=5)
    with pytest.raises(UserError, match="cannot take images of 3x16x16"):
        Network("vit", vit, plain, tuple("abcde")).shapes((3, 16, 16))
