"""Which tensors of a weights file are a network's: containers, prefixes, averages, and what to say where none fit."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sskd.errors import UserError
from sskd.models.misfit import COUNTER, differing_shapes, misfit

State = dict[str, Tensor]
Containers = Mapping[tuple[str, ...], State]
"""The dictionaries of a weights file that hold tensors, by the keys that lead to them."""

OPTIONS = "(evaluate, probe: --weights, distill: --teacher_weights or --student_init_weights, teacher: --init_weights)"
_AVERAGED = re.compile(r"(^|_)(ema|averaged|swa)(_|$)")
_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_USUAL = ("", "state_dict", "model", "model_state_dict")


@dataclass(frozen=True)
class Match:
    """The tensors of one place in a file, under the network's own names and maybe others (`left_over`).

    `place`: the keys and the prefix before those names, joined with dots; empty for a bare state dict.
    """

    place: str
    state: State
    left_over: bool
    shapes_fit: bool

    @property
    def averaged(self) -> bool:
        """Whether its place says that these are averages over the training (EMA, SWA)."""
        return any(_AVERAGED.search(part.lower()) for part in self.place.split("."))

    @property
    def shown(self) -> str:
        """Its place, for a message."""
        return self.place or "the top of the file"


def match(containers: Containers, own: State, weights: str | None, name: str, path: str) -> tuple[Match, str]:
    """Find the network's tensors in a file; and what is worth saying of the choice, empty where there was none.

    A place fits where all of the network's names follow one prefix (counters of batch norms may be absent). Shapes are
    not compared here, but places where they fit come before others.

    Args:
        containers: what the file holds.
        own: the network's state dict.
        weights: which of several: "ema", "plain", or a place; None where the file holds one.
        name: of the network, for messages.
        path: of the file, for messages.

    Raises:
        UserError: no place has all names, several do and none is asked for, or the one that is asked for does not.
    """
    found: list[Match] = []
    for spelled in _SPELLINGS:
        if found := [one for key, state in containers.items() for one in _matches(key, spelled(state), own)]:
            break
    if not found:
        raise UserError(misfit(containers, own, name))
    return _chosen(_asked(found, weights, path), weights, path)


def _without_wrappers(state: State) -> State:
    return {_WRAPPERS.sub("", key): value for key, value in state.items()}


def _mobilenet(state: State) -> State:
    """Published MobileNetV2 files spell their classifier in two ways."""
    return {key.replace("classifier.0.", "classifier."): value for key, value in state.items()}


_SPELLINGS: tuple[Callable[[State], State], ...] = (dict, _without_wrappers, _mobilenet)


def _matches(container: tuple[str, ...], state: State, own: State) -> list[Match]:
    needed = [key for key in own if not key.endswith(COUNTER)] or [*own]
    longest = max(needed, key=len, default="")
    prefixes = [key.removesuffix(longest) for key in state if key == longest or key.endswith(f".{longest}")]
    found = []
    for prefix in dict.fromkeys(prefixes):
        if all(prefix + key in state for key in needed):
            inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            place = ".".join([*container, *([prefix.rstrip(".")] if prefix else [])])
            found.append(Match(place, inner, bool(inner.keys() - own.keys()), not differing_shapes(inner, own)))
    return found


def _asked(found: Sequence[Match], weights: str | None, path: str) -> list[Match]:
    """Those that the option means.

    Raises:
        UserError: none.
    """
    if weights is None:
        return [*found]
    if weights in ("ema", "plain"):
        wanted = [one for one in found if one.averaged == (weights == "ema")]
    else:
        place = weights.strip(".")
        wanted = [one for one in found if one.place == place] or [
            one for one in found if one.place.endswith(f".{place}")
        ]
    if not wanted:
        raise UserError(
            f"{path} holds no weights {weights!r} of this network; it has them under {_listed(found)}. Name one of "
            f"these {OPTIONS}, or leave the option out."
        )
    return wanted


def _chosen(found: Sequence[Match], weights: str | None, path: str) -> tuple[Match, str]:
    """The one that fits best.

    Raises:
        UserError: several fit equally well.
    """
    best = min((one.left_over, not one.shapes_fit) for one in found)
    fitting = _distinct([one for one in found if (one.left_over, not one.shapes_fit) == best])
    plain = [one for one in fitting if not one.averaged]
    if len(fitting) == 1:
        one = fitting[0]
        others = [other for other in found if other is not one]
        if weights is None and one.averaged and others:
            return one, (
                f"{path}: the averaged weights under {one.shown} are taken, which fit this network best: those under "
                f"{_listed(others)} have other shapes, or more tensors than it. To take others, name them {OPTIONS}."
            )
        if weights is None and one.averaged:
            return one, f"{path}: the averaged weights under {one.shown} are taken; it holds no others."
        said = f"{path}: the weights under {one.shown} are taken." if one.place not in _USUAL else ""
        return one, said
    if len(plain) == 1 and weights is None:
        averaged = _listed([one for one in fitting if one.averaged])
        return plain[0], (
            f"{path} holds plain weights (under {plain[0].shown}) and averaged ones (under {averaged}). The plain ones "
            f"are taken; say ema for the averaged {OPTIONS}."
        )
    raise UserError(
        f"{path} holds several sets of weights that fit, and they differ: under {_listed(fitting)}. Say which is meant "
        f"by its name {OPTIONS}."
    )


def _distinct(found: Sequence[Match]) -> list[Match]:
    """Without those that hold the values of another: a module may stand in a file under two names."""
    kept: list[Match] = []
    for one in found:
        if not any(_equal(one.state, other.state) for other in kept):
            kept.append(one)
    return kept


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        value.shape == other[key].shape and value.dtype == other[key].dtype and torch.equal(value, other[key])
        for key, value in one.items()
    )


def _listed(found: Sequence[Match]) -> str:
    names = [one.shown for one in found]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def classes_of(theirs: State, own: State, classes: int) -> int:
    """For how many classes the file's classifier is, where the network's is for `classes` and nothing else differs."""
    counts = Counter[int]()
    for key in differing_shapes(theirs, own):
        there, here = tuple(theirs[key].shape), tuple(own[key].shape)
        if not here or len(there) != len(here) or there[1:] != here[1:] or here[0] != classes:
            return classes
        counts[there[0]] += 1
    return next(iter(counts)) if len(counts) == 1 else classes
