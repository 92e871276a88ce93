"""The thin residual networks for 32x32 images, and what all networks of the zoo have in common.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016 (section 4.2). The wide variants
(`x4`) are those of Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020.
"""

from copy import deepcopy
from typing import Any, ClassVar

from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.models.taps import Tap


class CifarNet(nn.Module):
    """A convolutional body, a global average and one linear classifier: every network of the zoo.

    A network builds its layers under the published names, sets `num_features`, `taps` and `chain`, calls
    `reset_classifier`, and says in `repeated_stage` what its last stage would be a second time.
    """

    classifier_name: ClassVar[str] = "fc"
    num_features: int
    num_classes: int
    taps: dict[str, Tap]
    chain: tuple[str, ...]  # the modules of the body, one after the other; all but the classifier

    def forward_features(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Compute the last feature map."""
        for name in self.chain:
            x = self.get_submodule(name)(x)
        return x

    @property
    def branch_taps(self) -> tuple[str, ...]:
        """Where auxiliary classifiers branch off: the stages, in order."""
        return tuple(name for name in self.taps if name.startswith("stage") and not name.endswith(".pre"))

    @property
    def after_stages(self) -> tuple[str, ...]:
        """The modules of the body that come after the last stage."""
        return self._following(self.taps[self.branch_taps[-1]].module)

    def _following(self, module: str) -> tuple[str, ...]:
        return self.chain[self.chain.index(module) + 1 :]

    def repeated_stage(self) -> nn.Module:
        """Another last stage, at stride 1, that takes the last stage's output and keeps its shape."""
        raise NotImplementedError

    def tail(self, tap: str, outputs: int) -> nn.Sequential:
        """What follows a stage, copied and freshly initialised, with a classifier of so many outputs.

        After the last stage, where no other follows, another copy of it comes first.

        Raises:
            UserError: the tap is no stage.
        """
        module = self.taps[tap].module if tap in self.taps else tap
        if module not in self.chain:
            stages = [name for name, known in self.taps.items() if known.module in self.chain]
            raise UserError(f"What follows {tap} cannot be copied; it can for {', '.join(stages)}.")
        rest = [deepcopy(self.get_submodule(name)) for name in self._following(module)]
        again = [self.repeated_stage()] if module == self.taps[self.branch_taps[-1]].module else []
        last = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.num_features, outputs))
        copied = nn.Sequential(*again, *rest, *last)
        for layer in copied.modules():
            if reset := getattr(layer, "reset_parameters", None):
                reset()
        init_convs(copied)
        return copied.to(next(self.parameters()))

    def forward_head(
        self, x: Float[Tensor, "B D h w"], pre_logits: bool = False
    ) -> Float[Tensor, "B K"] | Float[Tensor, "B D"]:
        """Average the last feature map and, unless `pre_logits`, classify it."""
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.get_classifier()(pooled)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Compute the logits."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier in place; with 0 classes the network returns its pooled features."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"{type(self).__name__} pools by the average (None or 'avg'), not by {global_pool!r}")
        self.num_classes = num_classes
        new = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        setattr(self, self.classifier_name, new.to(next(self.parameters())))


def cifar_cfg(pool: int, first_conv: str = "conv1", classifier: str = "fc") -> dict[str, Any]:
    """Describe a network of the zoo to timm: CIFAR-100's sizes and statistics, no weights."""
    return {
        "num_classes": 100,
        "input_size": (3, 32, 32),
        "fixed_input_size": False,
        "pool_size": (pool, pool),
        "crop_pct": 1.0,
        "mean": (0.5071, 0.4866, 0.4409),
        "std": (0.2675, 0.2565, 0.2761),
        "first_conv": first_conv,
        "classifier": classifier,
    }


def init_convs(network: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / (k k C_out)), biases zero, as He et al. and most CIFAR networks do."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_planes != planes:
            self.downsample = nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Transform, add the shortcut, activate."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.downsample(x))


class ResNet(CifarNet):
    """ResNet for CIFAR (He et al., CVPR 2016): three stages of (depth - 2) / 6 basic blocks.

    `widths` are the channels of the stem and of the stages.
    """

    def __init__(
        self,
        depth: int,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
        num_classes: int = 100,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        stem, *stages = widths
        self.conv1 = nn.Conv2d(in_chans, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.layer1 = _stage(stem, stages[0], blocks, stride=1)
        self.layer2 = _stage(stages[0], stages[1], blocks, stride=2)
        self.layer3 = _stage(stages[1], stages[2], blocks, stride=2)
        self.num_features = stages[2]
        self.chain = ("conv1", "bn1", "relu", "layer1", "layer2", "layer3")
        self.taps = {"stem": Tap("relu"), "pooled": Tap("fc", "in")}
        for k in (1, 2, 3):
            self.taps[f"stage{k}"] = Tap(f"layer{k}")
            self.taps[f"stage{k}.pre"] = Tap(f"layer{k}.{blocks - 1}.relu2", "in")
        init_convs(self)
        self.reset_classifier(num_classes)

    def repeated_stage(self) -> nn.Module:
        """The last stage at stride 1."""
        return _stage(self.num_features, self.num_features, len(self.layer3), stride=1)


def _stage(in_planes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (BasicBlock(planes, planes, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(in_planes, planes, stride), *rest)


_X4 = (32, 64, 128, 256)
_X05 = (8, 8, 16, 32)
_X0375 = (6, 6, 12, 24)
_DEPTHS = ("8", "14", "20", "32", "44", "56", "110", "8x4", "32x4", "14x05", "20x05", "20x0375")

default_cfgs = generate_default_cfgs({f"cifar_resnet{depth}": cifar_cfg(pool=8) for depth in _DEPTHS})


def _create(variant: str, pretrained: bool, **kwargs: Any) -> ResNet:
    return build_model_with_cfg(ResNet, variant, pretrained, **kwargs)


@register_model
def cifar_resnet8(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-8 (He et al., CVPR 2016)."""
    return _create("cifar_resnet8", pretrained, depth=8, **kwargs)


@register_model
def cifar_resnet14(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-14 (He et al., CVPR 2016)."""
    return _create("cifar_resnet14", pretrained, depth=14, **kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-20 (He et al., CVPR 2016)."""
    return _create("cifar_resnet20", pretrained, depth=20, **kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-32 (He et al., CVPR 2016)."""
    return _create("cifar_resnet32", pretrained, depth=32, **kwargs)


@register_model
def cifar_resnet44(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-44 (He et al., CVPR 2016)."""
    return _create("cifar_resnet44", pretrained, depth=44, **kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-56 (He et al., CVPR 2016)."""
    return _create("cifar_resnet56", pretrained, depth=56, **kwargs)


@register_model
def cifar_resnet110(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-110 (He et al., CVPR 2016)."""
    return _create("cifar_resnet110", pretrained, depth=110, **kwargs)


@register_model
def cifar_resnet8x4(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-8 with a stem twice and stages four times as wide (Tian et al., ICLR 2020)."""
    return _create("cifar_resnet8x4", pretrained, depth=8, widths=_X4, **kwargs)


@register_model
def cifar_resnet32x4(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-32 with a stem twice and stages four times as wide (Tian et al., ICLR 2020)."""
    return _create("cifar_resnet32x4", pretrained, depth=32, widths=_X4, **kwargs)


@register_model
def cifar_resnet14x05(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-14 at half its width."""
    return _create("cifar_resnet14x05", pretrained, depth=14, widths=_X05, **kwargs)


@register_model
def cifar_resnet20x05(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-20 at half its width."""
    return _create("cifar_resnet20x05", pretrained, depth=20, widths=_X05, **kwargs)


@register_model
def cifar_resnet20x0375(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-20 at three eighths of its width."""
    return _create("cifar_resnet20x0375", pretrained, depth=20, widths=_X0375, **kwargs)
