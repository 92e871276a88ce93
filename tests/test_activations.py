"""Values before the stages' last activations, and maps whose channels come last."""

from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from sskd.models.find import find_taps
from sskd.models.taps import Tap, Tapped, usable

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002", "cifar_resnet8", "resnet18", "resnet50"])
def test_stages_are_the_activations_of_what_comes_before(name: str) -> None:
    """The last two are torchvision's, whose blocks use one activation for all of their layers."""
    torch.manual_seed(0)
    make: Any = getattr(torchvision.models, name, None) or partial(timm.create_model, name)
    model = make(num_classes=5).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)  # timm begins with 0 in the last of each block, which hides what is below 0
    taps = find_taps(model)
    shapes, left_out, _ = usable(model, taps, IMAGES[:1])
    stages = [tap for tap in shapes if tap.endswith(".pre")]
    assert len(stages) in (3, 4) and not left_out
    tapped = Tapped(model, taps, tuple(taps))
    values = tapped(IMAGES)
    for tap in stages:
        assert (values[tap] < 0).any(), "overwritten by its activation"
        torch.testing.assert_close(values[tap].relu(), values[tap.removesuffix(".pre")])
    tapped.close()


def test_activations_work_in_place_again_afterwards() -> None:
    model = timm.create_model("resnet10t", num_classes=5).eval()
    active = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    assert all(module.inplace for module in active)
    expected = model(IMAGES)
    tapped = Tapped(model, find_taps(model), ("stage2.pre",))
    assert [module.inplace for module in active].count(False) == 1
    torch.testing.assert_close(tapped(IMAGES)["logits"], expected)
    tapped.close()
    assert all(module.inplace for module in active)


class Hidden(nn.Module):
    """Its only stage ends in an activation that is no module."""

    feature_info = [{"module": "stage", "num_chs": 4, "reduction": 1}]  # noqa: RUF012

    class Stage(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).relu()

    def __init__(self) -> None:
        super().__init__()
        self.stage, self.fc = self.Stage(3, 4, 3), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.stage(images).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("model", "stage", "reason"),
    [
        (Hidden(), "stage1", "ends in an activation that is no module of its own"),
        (torchvision.models.shufflenet_v2_x0_5(num_classes=5), "stage2", "is not the activation of what goes into"),
    ],
)
def test_what_only_looks_like_it_is_left_out(model: nn.Module, stage: str, reason: str) -> None:
    shapes, left_out, _ = usable(model, find_taps(model), IMAGES[:1])
    assert not any(tap.endswith(".pre") for tap in shapes) and stage in shapes
    assert reason in left_out[f"{stage}.pre"]


def test_stages_without_activation_count_as_they_are() -> None:
    taps = find_taps(timm.create_model("convnext_atto", num_classes=5))
    assert taps["stage2.pre"] == taps["stage2"] == Tap("stages.1")


def test_maps_with_channels_last_are_turned() -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2, num_classes=5).eval()
    tapped = Tapped(model, find_taps(model), ("stage2",))
    seen = []
    model.layers[1].register_forward_hook(lambda _, args, output: seen.append(output))
    found = tapped(IMAGES)["stage2"]
    assert found.shape == (2, 192, 8, 8) and seen[0].shape == (2, 8, 8, 192)
    torch.testing.assert_close(found, seen[0].permute(0, 3, 1, 2))
    tapped.close()
