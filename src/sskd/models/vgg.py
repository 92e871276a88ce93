"""VGG with batch norm and one linear layer instead of three.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015. VGG-8 is
the short member that Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020, added.
"""

from typing import Any

from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sskd.models.resnet import CifarNet, cifar_cfg, init_convs
from sskd.models.taps import Tap

_WIDTHS = (64, 128, 256, 512, 512)


class VGG(CifarNet):
    """VGG for CIFAR (Simonyan and Zisserman, ICLR 2015): five blocks of 3x3 convolutions.

    `convs` says how many there are in each block. A 2x2 maximum comes after each of the first three blocks,
    and after the fourth for images of 64 pixels or more.
    """

    classifier_name = "classifier"

    def __init__(self, convs: tuple[int, int, int, int, int], num_classes: int = 100, in_chans: int = 3) -> None:
        super().__init__()
        self.block0 = _block(in_chans, _WIDTHS[0], convs[0])
        self.block1 = _block(_WIDTHS[0], _WIDTHS[1], convs[1])
        self.block2 = _block(_WIDTHS[1], _WIDTHS[2], convs[2])
        self.block3 = _block(_WIDTHS[2], _WIDTHS[3], convs[3])
        self.block4 = _block(_WIDTHS[3], _WIDTHS[4], convs[4])
        self.pool, self.pool4 = nn.MaxPool2d(2), _PoolLarge()
        self.num_features = _WIDTHS[4]
        self.chain = ("block0", "pool", "block1", "pool", "block2", "pool", "block3", "pool4", "block4")
        self.taps = {"stem": Tap("block0"), "pooled": Tap("classifier", "in")}
        for k in (1, 2, 3, 4):
            self.taps[f"stage{k}"] = Tap(f"block{k}")
            self.taps[f"stage{k}.pre"] = Tap(f"block{k}.{3 * convs[k] - 1}", "in")
        init_convs(self)
        self.reset_classifier(num_classes)
        if isinstance(self.classifier, nn.Linear):
            nn.init.normal_(self.classifier.weight, std=0.01)
            nn.init.zeros_(self.classifier.bias)

    @property
    def branch_taps(self) -> tuple[str, ...]:
        """Blocks 0, 1, 2 and 4: blocks 3 and 4, between which maps of 32x32 images keep their size, are one stage."""
        return ("stem", "stage1", "stage2", "stage4")

    def repeated_stage(self) -> nn.Module:
        """Blocks 3 and 4 without pooling."""
        convs = (sum(isinstance(layer, nn.Conv2d) for layer in block) for block in (self.block3, self.block4))
        return nn.Sequential(*(_block(self.num_features, self.num_features, count) for count in convs))


class _PoolLarge(nn.MaxPool2d):
    """A 2x2 maximum of maps with a side of 8 or more: those of images with 64 pixels or more, after three others."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Pool, or leave as it is."""
        return super().forward(input) if input.shape[2] >= 8 else input


def _block(in_planes: int, planes: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(convs):
        conv = nn.Conv2d(planes if i else in_planes, planes, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(planes), nn.ReLU()]
    return nn.Sequential(*layers)


default_cfgs = generate_default_cfgs(
    {
        f"cifar_vgg{depth}": cifar_cfg(pool=4, first_conv="block0.0", classifier="classifier")
        for depth in (8, 11, 13, 16, 19)
    }
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> VGG:
    return build_model_with_cfg(VGG, variant, pretrained, **kwargs)


@register_model
def cifar_vgg8(pretrained: bool = False, **kwargs: Any) -> VGG:
    """VGG-8 (Tian et al., ICLR 2020)."""
    return _create("cifar_vgg8", pretrained, convs=(1, 1, 1, 1, 1), **kwargs)


@register_model
def cifar_vgg11(pretrained: bool = False, **kwargs: Any) -> VGG:
    """VGG-11 (Simonyan and Zisserman, ICLR 2015)."""
    return _create("cifar_vgg11", pretrained, convs=(1, 1, 2, 2, 2), **kwargs)


@register_model
def cifar_vgg13(pretrained: bool = False, **kwargs: Any) -> VGG:
    """VGG-13 (Simonyan and Zisserman, ICLR 2015)."""
    return _create("cifar_vgg13", pretrained, convs=(2, 2, 2, 2, 2), **kwargs)


@register_model
def cifar_vgg16(pretrained: bool = False, **kwargs: Any) -> VGG:
    """VGG-16 (Simonyan and Zisserman, ICLR 2015)."""
    return _create("cifar_vgg16", pretrained, convs=(2, 2, 3, 3, 3), **kwargs)


@register_model
def cifar_vgg19(pretrained: bool = False, **kwargs: Any) -> VGG:
    """VGG-19 (Simonyan and Zisserman, ICLR 2015)."""
    return _create("cifar_vgg19", pretrained, convs=(2, 2, 4, 4, 4), **kwargs)
