"""MobileNetV2 at half its width.

Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018;
with the strides that distillation papers use on 32x32 images.
"""

from typing import Any

from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sskd.models.resnet import CifarNet, cifar_cfg, init_convs
from sskd.models.taps import Tap

_SETTINGS = (  # expansion, channels at full width, units, stride of the first unit
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without activation; a shortcut where the shape stays."""

    def __init__(self, in_planes: int, planes: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_planes * expansion
        self.residual = stride == 1 and in_planes == planes
        self.conv = nn.Sequential(
            nn.Conv2d(in_planes, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, planes, 1, bias=False),
            nn.BatchNorm2d(planes),
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Expand, filter, project; add the input where it fits."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(CifarNet):
    """MobileNetV2 (Sandler et al., CVPR 2018): seven groups of inverted residuals.

    Stages are the linear outputs of groups 1, 2, 4 and 6, so nothing is left to undo: `.pre` is the same.
    """

    classifier_name = "classifier"

    def __init__(self, width: float = 0.5, num_classes: int = 100, in_chans: int = 3) -> None:
        super().__init__()
        planes = int(32 * width)
        self.conv1 = _conv_bn_relu(in_chans, planes, kernel=3, stride=2)
        self.blocks = nn.Sequential()
        for expansion, channels, units, stride in _SETTINGS:
            self.blocks.append(_group(planes, int(channels * width), units, stride, expansion))
            planes = int(channels * width)
        self.width = width
        self.num_features = 1280
        self.chain = ("conv1", *(f"blocks.{i}" for i in range(len(_SETTINGS))), "conv2")
        self.conv2 = _conv_bn_relu(planes, self.num_features, kernel=1, stride=1)
        self.taps = {"stem": Tap("conv1"), "pooled": Tap("classifier", "in")}
        for k, group_index in enumerate((1, 2, 4, 6), start=1):
            self.taps[f"stage{k}"] = self.taps[f"stage{k}.pre"] = Tap(f"blocks.{group_index}")
        init_convs(self)
        self.reset_classifier(num_classes)
        if isinstance(self.classifier, nn.Linear):
            nn.init.normal_(self.classifier.weight, std=0.01)
            nn.init.zeros_(self.classifier.bias)

    def repeated_stage(self) -> nn.Module:
        """Groups 5 and 6, which are the last stage, at stride 1."""
        planes, stage = int(_SETTINGS[-1][1] * self.width), nn.Sequential()
        for expansion, channels, units, _ in _SETTINGS[5:]:
            stage.append(_group(planes, int(channels * self.width), units, 1, expansion))
            planes = int(channels * self.width)
        return stage


def _group(in_planes: int, planes: int, units: int, stride: int, expansion: int) -> nn.Sequential:
    rest = (InvertedResidual(planes, planes, 1, expansion) for _ in range(units - 1))
    return nn.Sequential(InvertedResidual(in_planes, planes, stride, expansion), *rest)


def _conv_bn_relu(in_planes: int, planes: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_planes, planes, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(planes), nn.ReLU())


default_cfgs = generate_default_cfgs(
    {"cifar_mobilenet_v2": cifar_cfg(pool=2, first_conv="conv1.0", classifier="classifier")}
)


@register_model
def cifar_mobilenet_v2(pretrained: bool = False, **kwargs: Any) -> MobileNetV2:
    """MobileNetV2 x0.5 (Sandler et al., CVPR 2018) for 32x32 images."""
    return build_model_with_cfg(MobileNetV2, "cifar_mobilenet_v2", pretrained, **kwargs)
