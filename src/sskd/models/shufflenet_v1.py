"""ShuffleNet with three groups, for small images.

Zhang, Zhou, Lin, Sun: ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices,
CVPR 2018; with a 1x1 convolution and no pooling as its stem, as it is used on CIFAR.
"""

from typing import Any

import torch
from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sskd.models.resnet import CifarNet, cifar_cfg
from sskd.models.taps import Tap

_GROUPS = 3
_STEM = 24
_WIDTHS = (240, 480, 960)
_UNITS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Grouped 1x1, channel shuffle, 3x3 depthwise, grouped 1x1, beside a shortcut.

    With stride 2 the shortcut is an average and is concatenated, so the convolutions make the other channels.
    """

    def __init__(self, in_planes: int, planes: int, stride: int, first_groups: int = _GROUPS) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        made = planes - in_planes if stride == 2 else planes
        middle = made // 4
        self.conv1 = nn.Conv2d(in_planes, middle, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.relu1 = nn.ReLU()
        self.shuffle = nn.ChannelShuffle(first_groups)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(middle, made, 1, groups=_GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(made)
        self.relu3 = nn.ReLU()

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Transform, add or concatenate the shortcut, activate."""
        y = self.shuffle(self.relu1(self.bn1(self.conv1(x))))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu3(x + y if self.pool is None else torch.cat([y, self.pool(x)], dim=1))


class ShuffleNetV1(CifarNet):
    """ShuffleNet g = 3 (Zhang et al., CVPR 2018) for CIFAR: 4, 8 and 4 units at sides of 16, 8 and 4."""

    classifier_name = "linear"

    def __init__(self, num_classes: int = 100, in_chans: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU()
        self.layer1 = _stage(_STEM, _WIDTHS[0], _UNITS[0], first_groups=1)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], _UNITS[1])
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], _UNITS[2])
        self.num_features = _WIDTHS[2]
        self.chain = ("conv1", "bn1", "relu", "layer1", "layer2", "layer3")
        self.taps = {"stem": Tap("relu"), "pooled": Tap("linear", "in")}
        for k, units in enumerate(_UNITS, start=1):
            self.taps[f"stage{k}"] = Tap(f"layer{k}")
            self.taps[f"stage{k}.pre"] = Tap(f"layer{k}.{units - 1}.relu3", "in")
        self.reset_classifier(num_classes)

    def repeated_stage(self) -> nn.Module:
        """The last stage at stride 1: none of its units concatenates."""
        return nn.Sequential(*(ShuffleUnit(self.num_features, self.num_features, 1) for _ in range(_UNITS[-1])))


def _stage(in_planes: int, planes: int, units: int, first_groups: int = _GROUPS) -> nn.Sequential:
    rest = (ShuffleUnit(planes, planes, stride=1) for _ in range(units - 1))
    return nn.Sequential(ShuffleUnit(in_planes, planes, 2, first_groups), *rest)


default_cfgs = generate_default_cfgs({"cifar_shufflenet_v1": cifar_cfg(pool=4, classifier="linear")})


@register_model
def cifar_shufflenet_v1(pretrained: bool = False, **kwargs: Any) -> ShuffleNetV1:
    """ShuffleNet g = 3 (Zhang et al., CVPR 2018) for 32x32 images."""
    return build_model_with_cfg(ShuffleNetV1, "cifar_shufflenet_v1", pretrained, **kwargs)
