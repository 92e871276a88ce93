"""ResNet-50 with a stem for small images.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016 (table 1), with a 3x3
convolution of stride 1 and no pooling in front, as it is used on CIFAR.
"""

from typing import Any

from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sskd.models.resnet import CifarNet, cifar_cfg
from sskd.models.taps import Tap


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the output is four times as wide as the middle."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        out_planes = 4 * planes
        self.conv1 = nn.Conv2d(in_planes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(planes, out_planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_planes)
        self.relu3 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_planes != out_planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_planes, out_planes, 1, stride, bias=False), nn.BatchNorm2d(out_planes)
            )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Transform, add the shortcut, activate."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu3(y + self.shortcut(x))


class ResNet50(CifarNet):
    """ResNet-50 (He et al., CVPR 2016) for CIFAR: 3, 4, 6 and 3 bottlenecks at sides of 32, 16, 8 and 4."""

    classifier_name = "linear"

    def __init__(self, num_classes: int = 100, in_chans: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        self.num_features = 2048
        self.chain = ("conv1", "bn1", "relu", "layer1", "layer2", "layer3", "layer4")
        self.taps = {"stem": Tap("relu"), "pooled": Tap("linear", "in")}
        for k, blocks in enumerate((3, 4, 6, 3), start=1):
            self.taps[f"stage{k}"] = Tap(f"layer{k}")
            self.taps[f"stage{k}.pre"] = Tap(f"layer{k}.{blocks - 1}.relu3", "in")
        self.reset_classifier(num_classes)

    def repeated_stage(self) -> nn.Module:
        """The last stage at stride 1."""
        return _stage(self.num_features, self.num_features // 4, len(self.layer4), stride=1)


def _stage(in_planes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(4 * planes, planes, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(in_planes, planes, stride), *rest)


default_cfgs = generate_default_cfgs({"cifar_resnet50": cifar_cfg(pool=4, classifier="linear")})


@register_model
def cifar_resnet50(pretrained: bool = False, **kwargs: Any) -> ResNet50:
    """ResNet-50 (He et al., CVPR 2016) with a 3x3 stem of stride 1."""
    return build_model_with_cfg(ResNet50, "cifar_resnet50", pretrained, **kwargs)
