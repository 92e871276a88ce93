"""The names of the zoo: importing this module makes all of its networks known to timm."""

import difflib

import timm
from timm.models import is_model

from sskd.errors import UserError, unknown
from sskd.models import (
    mobilenet_v2,
    resnet,
    resnet50,
    shufflenet_v1,
    shufflenet_v2,
    vgg,
    wide_resnet,
)

TIMM_PLACES = ("hf-hub:", "local-dir:")
FAMILIES = (resnet, resnet50, wide_resnet, vgg, mobilenet_v2, shufflenet_v1, shufflenet_v2)

# the name in published code, tables and checkpoints -> the name in timm's registry
PUBLISHED: dict[str, str] = {
    "resnet8": "cifar_resnet8",
    "resnet14": "cifar_resnet14",
    "resnet20": "cifar_resnet20",
    "resnet32": "cifar_resnet32",
    "resnet44": "cifar_resnet44",
    "resnet56": "cifar_resnet56",
    "resnet110": "cifar_resnet110",
    "resnet8x4": "cifar_resnet8x4",
    "resnet32x4": "cifar_resnet32x4",
    "resnet14x05": "cifar_resnet14x05",
    "resnet20x05": "cifar_resnet20x05",
    "resnet20x0375": "cifar_resnet20x0375",
    "ResNet50": "cifar_resnet50",
    "wrn_16_1": "cifar_wrn_16_1",
    "wrn_16_2": "cifar_wrn_16_2",
    "wrn_40_1": "cifar_wrn_40_1",
    "wrn_40_2": "cifar_wrn_40_2",
    "vgg8": "cifar_vgg8",
    "vgg11": "cifar_vgg11",
    "vgg13": "cifar_vgg13",
    "vgg16": "cifar_vgg16",
    "vgg19": "cifar_vgg19",
    "MobileNetV2": "cifar_mobilenet_v2",
    "ShuffleV1": "cifar_shufflenet_v1",
    "ShuffleV2": "cifar_shufflenet_v2",
}


def names() -> list[str]:
    """List the zoo's networks by their names in timm's registry."""
    return list(PUBLISHED.values())


def resolve(name: str) -> str:
    """Find the name to give to `timm.create_model`.

    What timm knows (our `cifar_` names, timm's own with or without a tag) and every address (`hf-hub:`,
    `local-dir:`, `torchvision:`, `package.module:factory`) comes back as it is; so `resnet50` and `vgg16` are
    timm's. A published name becomes ours, and so do its other spellings (`wrn40-2`, `VGG8`); those that could mean a
    network of timm's are refused.
    """
    if ":" in name or is_model(name):
        return name
    if name in PUBLISHED:
        return PUBLISHED[name]
    ours: dict[str, str] = {}
    for published, full in PUBLISHED.items():
        for spelling in (published, full, full.removeprefix("cifar_")):
            ours[_folded(spelling)] = full
    timms = {_folded(model): model for model in timm.list_models() if model not in PUBLISHED.values()}
    folded = _folded(name)
    if folded in ours and folded in timms:
        raise UserError(f"{name!r} may be timm's {timms[folded]!r} or our {ours[folded]!r}. Give one of the two.")
    if folded in ours:
        return ours[folded]
    known = sorted({*names(), *PUBLISHED, *timm.list_models()})  # timm's fill a screen, so only the near ones
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    raise unknown("model", name, near or names())


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
