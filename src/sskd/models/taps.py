"""Named places inside a network at which a method reads what it computes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sskd.errors import UserError, unknown
from sskd.models.outputs import described

Shapes = Mapping[str, tuple[int, ...]]
"""Per tap the shape of one image's tensor: {"stage2": (32, 16, 16), "pooled": (64,), "logits": (100,)}."""


@dataclass(frozen=True)
class Tap:
    """The output of a submodule, or its first input (`at="in"` of an activation: the values before it).

    `channels_last`: the values are [N, H, W, C], as some transformers have them; they are read as [N, C, H, W]. None:
    not stated; `usable` sees it from their shape.
    `again`: the module is used more than once in a forward pass, and the last time counts.
    """

    module: str
    at: Literal["out", "in"] = "out"
    channels_last: bool | None = None
    again: bool = False


class Usable(NamedTuple):
    """What `usable` found: the shapes at the taps that can be read, why others cannot, the taps with their layout."""

    shapes: Shapes
    left_out: dict[str, str]
    taps: dict[str, Tap]


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
        self._last = {name for name, tap in taps.items() if tap.channels_last}
        self._inplace: list[Any] = []  # modules that are not to work in place while they are watched
        modules, watched = dict(model.named_modules()), [name for name in asked if name != "logits"]
        for name in watched:  # all, before the first hook: a refused network keeps none
            if name not in taps:
                raise unknown(f"tap of {_title(model)}", name, [*taps, "logits"])
            if taps[name].module not in modules:
                raise unknown(f"module of {_title(model)} (for tap {name})", taps[name].module, modules)
        for name in watched:
            self._handles.append(self._watch(name, taps[name], modules[taps[name].module]))

    def _watch(self, name: str, tap: Tap, module: Any) -> RemovableHandle:
        if tap.at == "in" and getattr(module, "inplace", False):
            module.inplace = False  # it would overwrite what is read; its output stays the same
            self._inplace.append(module)

        def before(_: nn.Module, args: tuple[Any, ...]) -> None:
            self._seen(name, args[0])

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._seen(name, output)

        watch = module.register_forward_pre_hook if tap.at == "in" else module.register_forward_hook
        handle: RemovableHandle = watch(before if tap.at == "in" else after)
        return handle

    def _seen(self, name: str, value: Tensor) -> None:
        self._store[name] = value

    def forward(self, images: Float[Tensor, "N C H W"]) -> dict[str, Tensor]:
        """`logits` [N, K] and one tensor [N, ...] for each tap that was asked for."""
        self._store.clear()  # the network may have been run by itself, hooks and all
        logits = self.model(images)
        seen = {name: self._turn(name, value) for name, value in self._store.items()}
        # Left in place they would be guarded on by compiled code, which would then recompile every step.
        self._store.clear()
        return {"logits": logits, **seen}

    def _turn(self, name: str, value: Tensor) -> Tensor:
        """Channels first."""
        turned = name in self._last and isinstance(value, Tensor) and value.ndim == 4
        return value.permute(0, 3, 1, 2) if turned else value

    def close(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()
        for module in self._inplace:
            module.inplace = True
        self._inplace.clear()
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
    found = usable(model, taps, image, missing="refuse")
    if found.left_out:
        raise UserError(next(iter(found.left_out.values())))
    return found.shapes


def usable(
    model: nn.Module,
    taps: Mapping[str, Tap],
    image: Float[Tensor, "1 C H W"],
    missing: Literal["refuse", "leave out"] = "leave out",
) -> Usable:
    """Run the network once on one image. The shape at every tap that can be read, and why each other one cannot.

    Where a tap does not say how its maps lie, the shape does: two sides are in proportion to the image's, the third
    dimension is the channels.

    Raises:
        UserError: logits that are no [1, K] tensor; modules that do not exist, if `missing` says so.
    """
    modules = dict(model.named_modules())
    there = {name: tap for name, tap in taps.items() if tap.module in modules or missing == "refuse"}
    left_out = {
        name: str(unknown(f"module of {_title(model)} (for tap {name})", tap.module, modules))
        for name, tap in taps.items()
        if name not in there
    }
    watched = _Probing(model, there, tuple(there))
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            values = watched(image)
    finally:
        watched.close()
        for module, mode in training.items():
            module.training = mode
    logits: Any = values["logits"]
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise UserError(
            f"{_title(model)} must return one tensor of logits [N, classes], by itself or as .logits or ['logits'] of "
            f"what it returns; it returned {described(logits)}."
        )
    reasons = {name: _problem(name, taps[name], fired, _title(model)) for name, fired in watched.fired.items()}
    left_out |= {name: reason for name, reason in reasons.items() if reason}
    found = {name: tap for name, tap in there.items() if name not in left_out}
    layouts = _layouts(found, values, image, _title(model))
    left_out |= {name: layout for name, layout in layouts.items() if isinstance(layout, str)}
    for name in [name for name, layout in layouts.items() if layout is True]:
        found[name], values[name] = replace(found[name], channels_last=True), values[name].permute(0, 3, 1, 2)
    left_out |= _not_before(values, {name: tap for name, tap in found.items() if name not in left_out}, modules)
    shapes = {name: tuple(value.shape[1:]) for name, value in values.items() if name not in left_out}
    return Usable(shapes, left_out, {name: tap for name, tap in found.items() if name in shapes})


def _layouts(
    taps: Mapping[str, Tap], values: Mapping[str, Tensor], image: Float[Tensor, "1 C H W"], model: str
) -> dict[str, bool | str]:
    """For each tap on maps that does not say so: whether its channels come last, or why that cannot be known.

    Where the shape fits both, channels come first, as torch has them, unless other taps of this network have them last.
    """
    height, width = image.shape[2:]
    found: dict[str, bool | str] = {}
    unclear: list[str] = []
    for name, tap in taps.items():
        if tap.channels_last is not None or values[name].ndim != 4:
            continue
        a, b, c = values[name].shape[1:]
        first, last = b * width == c * height, a * width == b * height
        found[name] = last and not first
        unclear += [name] if last == first else []
    if any(tap.channels_last for tap in taps.values()) or True in found.values():
        for name in unclear:
            where, shape = f"{name}: {taps[name].module}:{taps[name].at}", tuple(values[name].shape[1:])
            found[name] = (
                f"Tap {name} of {model} has maps of {shape}, which does not show whether channels come first or last, "
                f"and other taps of the network have them last. Write {where}:channels_first or {where}:channels_last."
            )
    return found


def _not_before(
    values: Mapping[str, Tensor], taps: Mapping[str, Tap], modules: Mapping[str, nn.Module]
) -> dict[str, str]:
    """Which `stageK.pre` are not what goes into the stage's last activation, and why: seen from the values."""
    reasons: dict[str, str] = {}
    for name, tap in taps.items():
        stage = name.removesuffix(".pre")
        if stage == name or stage not in taps:
            continue
        if tap.at == "in":
            same = values[name].shape == values[stage].shape
            if not same or not torch.allclose(modules[tap.module](values[name]), values[stage], atol=1e-5):
                reasons[name] = f"{stage} is not the activation of what goes into {tap.module}. Name another module."
        elif bool((values[stage] >= 0).all()):
            reasons[name] = f"{stage} ends in an activation that is no module of its own. Name the module before it."
    return reasons


def _problem(name: str, tap: Tap, fired: list[tuple[Any, int]], model: str) -> str:
    """Why a tap cannot be read; empty where it can."""
    where = f"Tap {name} of {model} ({tap.at}put of {tap.module})"
    if len(fired) != 1 and not (tap.again and fired):
        advice = ", or write MODULE:again if its last time counts" if fired else ""
        return f"{where} fired {len(fired)} times in one forward pass; it must fire once. Name another module{advice}."
    value, version = fired[-1]
    if not isinstance(value, Tensor) or value.ndim < 2 or value.shape[0] != 1:
        return f"{where} is {_kind(value)}; a tensor with the batch as first dimension is needed."
    if value._version != version:
        return (
            f"{where} is overwritten in place after it was read, so its values would be wrong. Name the module that "
            "overwrites it (often the activation that follows), or build the network with inplace=False."
        )
    if name == "pooled" and value.ndim != 2:
        kind = "maps: the classifier is convolutional" if value.ndim == 4 else "tokens: it pools after the classifier"
        return f"{where} is {_kind(value)}, {kind}. A linear classifier on one vector for each image is needed."
    return ""


_ENDINGS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "in": {"at": "in"},
    "out": {"at": "out"},
    "channels_last": {"channels_last": True},
    "channels_first": {"channels_last": False},
    "again": {"again": True},
}


def parse_taps(named: Mapping[str, str]) -> dict[str, Tap]:
    """Taps as a user writes them: {"stage1": "layer1", "pooled": "fc:in"}; `:in` is the module's input.

    After that `:channels_last` or `:channels_first` says how maps lie, where their shape does not show it, and `:again`
    that a module is used several times and the last counts.

    Raises:
        UserError: another ending, two that contradict each other, or no module.
    """
    taps: dict[str, Tap] = {}
    for name, text in named.items():
        module, *endings = text.split(":")
        stated = [key for ending in endings for key in _ENDINGS.get(ending, {})]
        if not module or not name or not _ENDINGS.keys() >= {*endings} or len(stated) > len({*stated}):
            raise UserError(
                f"The tap {name!r}: {text!r} is not understood. Write NAME: MODULE for the module's output, or "
                "NAME: MODULE:in for its input, for example pooled: head.fc:in; then, where it is needed, "
                ":channels_last (maps of height, width, channels), :channels_first, or :again (used several times, of "
                "which the last counts)."
            )
        taps[name] = Tap(module, **{key: value for ending in endings for key, value in _ENDINGS[ending].items()})
    return taps


def _kind(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _title(model: nn.Module) -> str:
    return str(getattr(model, "title", type(model).__name__))
