"""ShuffleNetV2 for small images.

Ma, Zhang, Zheng, Sun: ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV 2018;
with a 1x1 convolution and no pooling as its stem, as it is used on CIFAR.
"""

from typing import Any

import torch
from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sskd.models.resnet import CifarNet, cifar_cfg
from sskd.models.taps import Tap

_STEM = 24
_WIDTHS = (116, 232, 464)
_UNITS = (3, 7, 3)  # after the one that halves the map


class SplitUnit(nn.Module):
    """Half of the channels pass, the other half goes through 1x1, 3x3 depthwise and 1x1 convolutions.

    The published unit activates the other half alone. The half that passes comes from a ReLU, so one ReLU
    over both is the same in value and gradient, and its input is the unit before its activation.
    """

    def __init__(self, planes: int) -> None:
        super().__init__()
        half = planes // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.shuffle = nn.ChannelShuffle(2)
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Split, transform one half, join and shuffle, activate."""
        kept, y = x.chunk(2, dim=1)
        y = self.relu1(self.bn1(self.conv1(y)))
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        return self.relu(self.shuffle(torch.cat([kept, y], dim=1)))


class DownUnit(nn.Module):
    """Two branches with depthwise convolutions, of stride 2 as a rule, joined; each makes half of the channels."""

    def __init__(self, in_planes: int, planes: int, stride: int = 2) -> None:
        super().__init__()
        half = planes // 2
        self.conv1 = nn.Conv2d(in_planes, in_planes, 3, stride, padding=1, groups=in_planes, bias=False)
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv2 = nn.Conv2d(in_planes, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_planes, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(half, half, 3, stride, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)
        self.shuffle = nn.ChannelShuffle(2)
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Transform twice, join and shuffle, activate."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = self.relu3(self.bn3(self.conv3(x)))
        right = self.bn5(self.conv5(self.bn4(self.conv4(right))))
        return self.relu(self.shuffle(torch.cat([left, right], dim=1)))


class ShuffleNetV2(CifarNet):
    """ShuffleNetV2 x1 (Ma et al., ECCV 2018) for CIFAR: 4, 8 and 4 units at sides of 16, 8 and 4."""

    classifier_name = "linear"

    def __init__(self, num_classes: int = 100, in_chans: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu1 = nn.ReLU()
        self.layer1 = _stage(_STEM, _WIDTHS[0], _UNITS[0])
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], _UNITS[1])
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], _UNITS[2])
        self.num_features = 1024
        self.chain = ("conv1", "bn1", "relu1", "layer1", "layer2", "layer3", "conv2", "bn2", "relu2")
        self.conv2 = nn.Conv2d(_WIDTHS[2], self.num_features, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(self.num_features)
        self.relu2 = nn.ReLU()
        self.taps = {"stem": Tap("relu1"), "pooled": Tap("linear", "in")}
        for k, units in enumerate(_UNITS, start=1):
            self.taps[f"stage{k}"] = Tap(f"layer{k}")
            self.taps[f"stage{k}.pre"] = Tap(f"layer{k}.{units}.relu", "in")
        self.reset_classifier(num_classes)

    def repeated_stage(self) -> nn.Module:
        """The last stage at stride 1."""
        return _stage(_WIDTHS[-1], _WIDTHS[-1], _UNITS[-1], stride=1)


def _stage(in_planes: int, planes: int, units: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(DownUnit(in_planes, planes, stride), *(SplitUnit(planes) for _ in range(units)))


default_cfgs = generate_default_cfgs({"cifar_shufflenet_v2": cifar_cfg(pool=4, classifier="linear")})


@register_model
def cifar_shufflenet_v2(pretrained: bool = False, **kwargs: Any) -> ShuffleNetV2:
    """ShuffleNetV2 x1 (Ma et al., ECCV 2018) for 32x32 images."""
    return build_model_with_cfg(ShuffleNetV2, "cifar_shufflenet_v2", pretrained, **kwargs)
