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
from sskd.models.names import PUBLISHED as PUBLISHED

TIMM_PLACES = ("hf-hub:", "local-dir:")
FAMILIES = (resnet, resnet50, wide_resnet, vgg, mobilenet_v2, shufflenet_v1, shufflenet_v2)


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
