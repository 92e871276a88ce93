"""The taps of a network that somebody else has written, found from what it says of itself."""

import re
from dataclasses import replace
from typing import Any

from torch import nn

from sskd.models.taps import Tap

# torchvision's networks carry no table of their own. Stem and stages by class name; the others' stages lie between
# blocks that differ from size to size.
_LAYERS = ("layer1", "layer2", "layer3", "layer4")
_EVERY_SECOND = tuple(f"features.{i}" for i in (1, 3, 5, 7))
_TORCHVISION: dict[str, tuple[str, tuple[str, ...]]] = {
    "ResNet": ("relu", _LAYERS),
    "DenseNet": ("features.relu0", tuple(f"features.denseblock{i}" for i in range(1, 5))),
    "RegNet": ("stem", tuple(f"trunk_output.block{i}" for i in range(1, 5))),
    "ShuffleNetV2": ("maxpool", ("stage2", "stage3", "stage4")),
    "ConvNeXt": ("features.0", _EVERY_SECOND),
    "SwinTransformer": ("features.0", _EVERY_SECOND),
    "EfficientNet": ("features.0", tuple(f"features.{i}" for i in (2, 3, 5, 7))),
    "MaxVit": ("stem", tuple(f"blocks.{i}" for i in range(4))),
}


def find_taps(model: nn.Module) -> dict[str, Tap]:
    """The taps of a network of the zoo, of timm, of torchvision or of the user's, found without running it.

    `stem`, `stage1`.., `pooled` (the input of the classifier, of the first where there are two); networks of the zoo
    also have `stageK.pre`. Whether each can be read is seen when the network runs: see `usable`.
    """
    declared = getattr(model, "taps", None)
    if isinstance(declared, dict):
        return dict(declared)
    if getattr(model, "feature_info", None) is not None:
        last = str(getattr(model, "output_fmt", "")).endswith("NHWC")
        return _with_activations(model, _turned(_timm_taps(model)) if last else _timm_taps(model))
    taps: dict[str, Tap] = {}
    if type(model).__module__.startswith("torchvision.") and type(model).__name__ in _TORCHVISION:
        stem, stages = _TORCHVISION[type(model).__name__]
        taps = {"stem": Tap(stem), **{f"stage{i}": Tap(name) for i, name in enumerate(stages, 1)}}
        taps = _turned(taps) if type(model).__name__ == "SwinTransformer" else taps
        taps |= _resnet_activations(model) if type(model).__name__ == "ResNet" else {}
    return _with_activations(model, {**taps, **_last_linear(model)})


def stages_by_name(model: nn.Module) -> dict[str, Tap]:
    """Stages of a network that says nothing of itself, by what its modules are called; empty where that is unclear.

    They are the children `layer1`, `layer2`.. or `stage1`, `stage2`.. of one module (numbered from 0 or 1), or the
    parts of a child `stages`. Of several such modules the outermost counts; two at the same depth are unclear.
    """
    at_depth: dict[int, list[list[str]]] = {}
    for path, module in model.named_modules():
        depth = len(path.split(".")) if path else 0
        at_depth.setdefault(depth, []).extend(_series_of_stages(path, module))
    for _, series in sorted(at_depth.items()):
        if len(series) == 1:
            return _with_activations(model, {f"stage{i}": Tap(name) for i, name in enumerate(series[0], 1)})
        if series:
            break
    return {}


def _series_of_stages(path: str, module: nn.Module) -> list[list[str]]:
    """The module's children that are named like stages, in order: a list for each kind of name, of two or more."""
    prefix, children = f"{path}." if path else "", dict(module.named_children())
    series = list[list[str]]()
    for kind in ("layer", "stage"):
        numbered = {int(found[1]): name for name in children if (found := re.fullmatch(rf"{kind}_?(\d+)", name))}
        numbers = sorted(numbered)
        if numbers in ([*range(len(numbers))], [*range(1, len(numbers) + 1)]):
            series.append([prefix + numbered[i] for i in numbers])
    if isinstance(parts := children.get("stages"), nn.Sequential | nn.ModuleList):
        series.append([f"{prefix}stages.{name}" for name, _ in parts.named_children()])
    return [names for names in series if len(names) > 1]


def _resnet_activations(model: Any) -> dict[str, Tap]:
    """`stageK.pre` of torchvision's ResNets, whose blocks have one activation for all of their layers."""
    blocks = {f"stage{i}.pre": f"{name}.{len(getattr(model, name)) - 1}" for i, name in enumerate(_LAYERS, 1)}
    return {name: Tap(f"{block}.relu", "in", again=True) for name, block in blocks.items()}


def _turned(taps: dict[str, Tap]) -> dict[str, Tap]:
    maps = {name: replace(tap, channels_last=True) for name, tap in taps.items() if name.startswith("st")}
    return {**taps, **maps}


def _with_activations(model: nn.Module, taps: dict[str, Tap]) -> dict[str, Tap]:
    """Add `stageK.pre`, what goes into a stage's last activation, where a stage's last block ends in one.

    Blocks are told apart by what they are made of: the last of the stage's children, again and again, until an
    activation or a module of another kind comes last. A stage that ends without one counts as it is.
    """
    modules, added = dict(model.named_modules()), dict[str, Tap]()
    for name, tap in taps.items():
        if f"{name}.pre" not in taps and name.startswith("stage") and tap.module in modules and tap.at == "out":
            last = tap.module
            while children := [*modules[last].named_children()]:
                last = f"{last}.{_final(children)}"
            active = isinstance(modules[last], _ACTIVATIONS)
            added[f"{name}.pre"] = replace(tap, module=last, at="in") if active else tap
    return {**taps, **added}


_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.ELU)


def _final(children: list[tuple[str, nn.Module]]) -> str:
    """The child that comes last in a forward pass; of residual blocks the activation, though the shortcut is listed."""
    plain = [name for name, module in children if name not in ("downsample", "shortcut") and not _idle(module)]
    return plain[-1] if plain else children[-1][0]


def _idle(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity | nn.Dropout)


def _last_linear(model: nn.Module) -> dict[str, Tap]:
    """The classifier's input, where the last layer with parameters is linear: one that others follow may be a gate."""
    layers = [item for item in model.named_modules() if item[1]._parameters]
    return {"pooled": Tap(layers[-1][0], "in")} if layers and isinstance(layers[-1][1], nn.Linear) else {}


def _timm_taps(model: nn.Module) -> dict[str, Tap]:
    info: Any = model.feature_info
    entries = list(info if isinstance(info, list) else info.get_dicts())
    taps: dict[str, Tap] = {}
    if entries and _is_stem(entries):
        taps["stem"] = Tap(entries.pop(0)["module"])
    taps.update({f"stage{i}": Tap(entry["module"]) for i, entry in enumerate(entries, 1)})
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    name = names if isinstance(names, str) else next(iter(names), "")  # two: for class and for distillation token
    if name and not isinstance(dict(model.named_modules()).get(name), nn.Identity | None):
        return {**taps, "pooled": Tap(name, "in")}
    return {**taps, **_last_linear(model)}


def _is_stem(entries: list[dict[str, Any]]) -> bool:
    """Whether timm's first feature is a stem: by its stage number, or because it is named unlike the second."""
    if "stage" in entries[0]:
        return bool(entries[0]["stage"] == 0)
    if len(entries) < 2:
        return False
    first, second = (entry["module"].rstrip("0123456789.") for entry in entries[:2])
    return bool(first != second)
