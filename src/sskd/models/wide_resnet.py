"""Wide residual networks: batch norm and activation come before each convolution.

Zagoruyko, Komodakis: Wide Residual Networks, BMVC 2016.
"""

from typing import Any

from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sskd.models.resnet import CifarNet, cifar_cfg, init_convs
from sskd.models.taps import Tap


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after its norm and ReLU, and a sum that stays raw.

    Where the width changes, the shortcut is a 1x1 convolution of the activated input, else the input itself.
    """

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.convShortcut = (  # the published key
            nn.Conv2d(in_planes, planes, 1, stride, bias=False) if in_planes != planes else None
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Activate, transform, add the shortcut."""
        active = self.relu1(self.bn1(x))
        y = self.relu2(self.bn2(self.conv1(active)))
        return self.conv2(y) + (x if self.convShortcut is None else self.convShortcut(active))


class Group(nn.Module):
    """A stage: blocks of one width, the first of which may halve the map."""

    def __init__(self, in_planes: int, planes: int, blocks: int, stride: int) -> None:
        super().__init__()
        rest = (PreActBlock(planes, planes, stride=1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(PreActBlock(in_planes, planes, stride), *rest)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Apply the blocks one after the other."""
        return self.layer(x)


class WideResNet(CifarNet):
    """WRN-depth-width (Zagoruyko and Komodakis, BMVC 2016): three stages of (depth - 4) / 6 blocks.

    Stages are raw sums; `.pre` is the norm that comes next, whose ReLU is what the next stage sees.
    """

    def __init__(self, depth: int, width: int, num_classes: int = 100, in_chans: int = 3) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.block1 = Group(16, 16 * width, blocks, stride=1)
        self.block2 = Group(16 * width, 32 * width, blocks, stride=2)
        self.block3 = Group(32 * width, 64 * width, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU()
        self.num_features = 64 * width
        self.chain = ("conv1", "block1", "block2", "block3", "bn1", "relu")
        self.taps = {
            "stem": Tap("conv1"),
            "stage1": Tap("block1"),
            "stage1.pre": Tap("block2.layer.0.bn1"),
            "stage2": Tap("block2"),
            "stage2.pre": Tap("block3.layer.0.bn1"),
            "stage3": Tap("block3"),
            "stage3.pre": Tap("bn1"),
            "pooled": Tap("fc", "in"),
        }
        init_convs(self)
        self.reset_classifier(num_classes)
        if isinstance(self.fc, nn.Linear):
            nn.init.zeros_(self.fc.bias)

    def repeated_stage(self) -> nn.Module:
        """The last stage at stride 1."""
        return Group(self.num_features, self.num_features, len(self.block3.layer), stride=1)


default_cfgs = generate_default_cfgs(
    {f"cifar_wrn_{variant}": cifar_cfg(pool=8) for variant in ("16_1", "16_2", "40_1", "40_2")}
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> WideResNet:
    return build_model_with_cfg(WideResNet, variant, pretrained, **kwargs)


@register_model
def cifar_wrn_16_1(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-1 (Zagoruyko and Komodakis, BMVC 2016)."""
    return _create("cifar_wrn_16_1", pretrained, depth=16, width=1, **kwargs)


@register_model
def cifar_wrn_16_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-2 (Zagoruyko and Komodakis, BMVC 2016)."""
    return _create("cifar_wrn_16_2", pretrained, depth=16, width=2, **kwargs)


@register_model
def cifar_wrn_40_1(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-1 (Zagoruyko and Komodakis, BMVC 2016)."""
    return _create("cifar_wrn_40_1", pretrained, depth=40, width=1, **kwargs)


@register_model
def cifar_wrn_40_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-2 (Zagoruyko and Komodakis, BMVC 2016)."""
    return _create("cifar_wrn_40_2", pretrained, depth=40, width=2, **kwargs)
