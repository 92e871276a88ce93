"""Named places inside a network at which a method reads what it computes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sskd.errors import UserError, unknown

Shapes = Mapping[str, tuple[int, ...]]
"""Per tap the shape of one image's tensor: {"stage2": (32, 16, 16), "pooled": (64,), "logits": (100,)}."""


@dataclass(frozen=True)
class Tap:
    """The output of a submodule, or its first input (`at="in"` of an activation: the values before it)."""

    module: str
    at: Literal["out", "in"] = "out"


# torchvision's networks carry no table of their own. Stem, stages, classifier, by class name.
_TORCHVISION: dict[str, tuple[str, tuple[str, ...], str]] = {
    "ResNet": ("relu", ("layer1", "layer2", "layer3", "layer4"), "fc"),
}


def find_taps(model: nn.Module) -> dict[str, Tap]:
    """The taps of a network of the zoo, of timm or of torchvision, found without running it.

    `stem`, `stage1`.., `pooled` (the input of the linear classifier); networks of the zoo also have `stageK.pre`.
    `pooled` is left out where the classifier is not an `nn.Linear`.
    """
    declared = getattr(model, "taps", None)
    if isinstance(declared, dict):
        return dict(declared)
    if getattr(model, "feature_info", None) is not None:
        return _timm_taps(model)
    known = _TORCHVISION.get(type(model).__name__)
    if known is None:
        layers = [item for item in model.named_modules() if item[1]._parameters]
        # A linear layer that others follow may be anything, a gate for example.
        return {"pooled": Tap(layers[-1][0], "in")} if layers and isinstance(layers[-1][1], nn.Linear) else {}
    stem, stages, classifier = known
    return {
        "stem": Tap(stem),
        **{f"stage{i}": Tap(name) for i, name in enumerate(stages, 1)},
        "pooled": Tap(classifier, "in"),
    }


def _timm_taps(model: nn.Module) -> dict[str, Tap]:
    info: Any = model.feature_info
    entries = list(info if isinstance(info, list) else info.get_dicts())
    taps: dict[str, Tap] = {}
    if entries and _is_stem(entries):
        taps["stem"] = Tap(entries.pop(0)["module"])
    taps.update({f"stage{i}": Tap(entry["module"]) for i, entry in enumerate(entries, 1)})
    name = getattr(model, "pretrained_cfg", {}).get("classifier")
    if isinstance(name, str) and isinstance(dict(model.named_modules()).get(name), nn.Linear):
        taps["pooled"] = Tap(name, "in")
    return taps


def _is_stem(entries: list[dict[str, Any]]) -> bool:
    """Whether timm's first feature is a stem: by its stage number, or because it is named unlike the second."""
    if "stage" in entries[0]:
        return bool(entries[0]["stage"] == 0)
    if len(entries) < 2:
        return False
    first, second = (entry["module"].rstrip("0123456789.") for entry in entries[:2])
    return bool(first != second)


class Tapped(nn.Module):
    """A network that returns, beside its logits, the values at the taps that were asked for.

    Submodules are watched with forward hooks, so the network's own code stays as it is. Hooks live until `close()`.

    Raises:
        UserError: a tap that the network does not have, or that names a module that does not exist.
    """

    def __init__(self, model: nn.Module, taps: Mapping[str, Tap], asked: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._store: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        modules, watched = dict(model.named_modules()), [name for name in asked if name != "logits"]
        for name in watched:  # all, before the first hook: a refused network keeps none
            if name not in taps:
                raise unknown(f"tap of {_title(model)}", name, [*taps, "logits"])
            if taps[name].module not in modules:
                raise unknown(f"module of {_title(model)} (for tap {name})", taps[name].module, modules)
        for name in watched:
            self._handles.append(self._watch(name, taps[name], modules[taps[name].module]))

    def _watch(self, name: str, tap: Tap, module: nn.Module) -> RemovableHandle:
        def before(_: nn.Module, args: tuple[Any, ...]) -> None:
            self._seen(name, args[0])

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._seen(name, output)

        return module.register_forward_pre_hook(before) if tap.at == "in" else module.register_forward_hook(after)

    def _seen(self, name: str, value: Tensor) -> None:
        self._store[name] = value

    def forward(self, images: Float[Tensor, "N C H W"]) -> dict[str, Tensor]:
        """`logits` [N, K] and one tensor [N, ...] for each tap that was asked for."""
        self._store.clear()  # the network may have been run by itself, hooks and all
        logits = self.model(images)
        seen = dict(self._store)
        # Left in place they would be guarded on by compiled code, which would then recompile every step.
        self._store.clear()
        return {"logits": logits, **seen}

    def close(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._store.clear()


class _Probing(Tapped):
    """Counts how often each tap fires, and remembers the tensors and their version numbers."""

    def __init__(self, model: nn.Module, taps: Mapping[str, Tap], asked: tuple[str, ...]) -> None:
        super().__init__(model, taps, asked)
        self.fired: dict[str, list[tuple[Any, int]]] = {name: [] for name in asked if name != "logits"}

    def _seen(self, name: str, value: Tensor) -> None:
        self.fired[name].append((value, value._version if isinstance(value, Tensor) else 0))
        super()._seen(name, value)


def probe(model: nn.Module, taps: Mapping[str, Tap], image: Float[Tensor, "1 C H W"]) -> Shapes:
    """Run the network once on one image and return the shape at every tap, without the batch dimension.

    Raises:
        UserError: a tap that fires never or twice, is no tensor, or is overwritten in place after it fired (a
            hook on a batch norm that an in-place ReLU follows sees the values after the ReLU); logits that are
            no [1, K] tensor.
    """
    watched = _Probing(model, taps, tuple(taps))
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            values = watched(image)
    finally:
        watched.close()
        for module, mode in training.items():
            module.training = mode
    for name, fired in watched.fired.items():
        _check(name, taps[name], fired, _title(model))
    logits: Any = values["logits"]
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise UserError(f"{_title(model)} must return one tensor of logits [N, classes]; it returned {_kind(logits)}.")
    return {name: tuple(value.shape[1:]) for name, value in values.items()}


def _check(name: str, tap: Tap, fired: list[tuple[Any, int]], model: str) -> None:
    where = f"Tap {name} of {model} ({tap.at}put of {tap.module})"
    if len(fired) != 1:
        raise UserError(
            f"{where} fired {len(fired)} times in one forward pass; it must fire once. Name another module."
        )
    value, version = fired[0]
    if not isinstance(value, Tensor) or value.ndim < 2 or value.shape[0] != 1:
        raise UserError(f"{where} is {_kind(value)}; a tensor with the batch as first dimension is needed.")
    if value._version != version:
        raise UserError(
            f"{where} is overwritten in place after it was read, so its values would be wrong. Name the module that "
            "overwrites it (often the activation that follows), or build the network with inplace=False."
        )


def _kind(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _title(model: nn.Module) -> str:
    return str(getattr(model, "title", type(model).__name__))
