"""Why a file's tensors are not a network's, and what to do: each kind of mismatch has its own way out."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

State = dict[str, Tensor]
COUNTER = "num_batches_tracked"  # of a batch norm: files from before PyTorch 0.4.1 have none, and no result needs it
_POSITIONS = ("pos_embed", "position", "relative_", "attn_mask")


def differing_shapes(theirs: State, own: State) -> list[str]:
    """Keys that both have, in unlike shapes."""
    return sorted(key for key in theirs.keys() & own.keys() if theirs[key].shape != own[key].shape)


def misfit(containers: Mapping[tuple[str, ...], State], own: State, name: str) -> str:
    """The message for a file of which no place has all of a network's names."""
    counts = Counter[tuple[tuple[str, ...], str]]()
    for container, state in containers.items():
        for key in state:
            parts = key.split(".")
            for i in range(len(parts)):
                if ".".join(parts[i:]) in own:
                    counts[container, ".".join([*parts[:i], ""]) if i else ""] += 1
    if counts:
        (container, prefix), _ = counts.most_common(1)[0]
    else:
        container, prefix = max(containers, key=lambda key: len(containers[key])), ""
    state = containers[container]
    return difference({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, own, name)


def difference(theirs: State, own: State, name: str, side: int | None = None) -> str:
    """What differs between the tensors of a file and those of a network, and what to do about it.

    `side`: of the images that the network is built for, in pixels, if it is for one size.
    """
    needed = {key for key in own if not key.endswith(COUNTER)}
    missing, extra = sorted(needed - theirs.keys()), sorted(theirs.keys() - own.keys())
    other = differing_shapes(theirs, own)
    shapes = [f"{key} is {_shape(theirs[key])} in the file, {_shape(own[key])} in the network" for key in other]
    problems = [
        f"{title}: {', '.join(keys[:5])}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}"
        for title, keys in (("missing", missing), ("left over", extra), ("of another shape", shapes))
        if keys
    ]
    keys = f" Keys {'; '.join(problems)}." if problems else ""
    return f"These weights are not of {name}.{keys} {_advice(theirs, own, missing, extra, name, side)}"


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)


def _advice(
    theirs: State, own: State, missing: Sequence[str], extra: Sequence[str], name: str, side: int | None
) -> str:
    """The way out that suits what differs."""
    if quantised(theirs, own):
        return "They are quantised. Give the network's weights in floating point, from before they were quantised."
    if any(key.endswith(("_orig", "_mask")) or "parametrizations." in key or key.endswith("weight_g") for key in extra):
        return (
            "Their layers are pruned or re-parametrised. Make that permanent before saving "
            "(torch.nn.utils.prune.remove, torch.nn.utils.parametrize.remove_parametrizations), and give those."
        )
    if missing and extra:
        return _other_names(theirs, own, missing, extra, name)
    if (missing or extra) and differing_shapes(theirs, own):
        return f"Parts and widths are those of another variant than {name}: name the right one."
    if missing:
        return (
            f"The file lacks a part of {name}: it is of a smaller network, or of a part of this one. Name the right "
            "architecture, or save the whole network's state dict."
        )
    if extra:
        return (
            f"The file holds more than {name} has: it is of a larger network, or other parts lie among its weights. "
            "Name the right architecture, or save the network's state dict alone."
        )
    return _other_shapes(theirs, own, differing_shapes(theirs, own), name, side)


def _other_names(theirs: State, own: State, missing: Sequence[str], extra: Sequence[str], name: str) -> str:
    extra = [key for key in extra if not key.endswith(COUNTER)]
    ours, others = (Counter(_shape(state[key]) for key in keys) for state, keys in ((own, missing), (theirs, extra)))
    code = "give that code's function as the architecture, package.module:factory"
    if ours == others:
        return (
            f"The tensors have the shapes of {name} under other names ({len(missing):,} missing, {len(extra):,} left "
            f"over): it is the same network written in other code, so {code}."
        )
    if 2 * len(missing) > sum(not key.endswith(COUNTER) for key in own):
        return f"Name the right architecture; if it is {name} written in other code, {code}."
    return "Name the right architecture."


def _other_shapes(theirs: State, own: State, keys: Sequence[str], name: str, side: int | None) -> str:
    keys = _without_classifier(theirs, own, keys)
    key = keys[0]
    there, here = _shape(theirs[key]), _shape(own[key])
    if all(any(part in one for part in _POSITIONS) for one in keys):
        built = f"{side} pixels, for which" if side else "the size for which"
        made = _side_of(there, here, side)
        return (
            f"They were made for images of {f'{made} pixels' if made else 'another size'}, not of {built} {name} was "
            f"built. Say the size: --teacher_size {made or 'PIXELS'} (teacher, evaluate: --size). Position embeddings "
            "are not resampled here."
        )
    if len(keys) == 1 and len(there) == 4 and there[2:] == here[2:] and there[0] == here[0]:
        return (
            f"They take images of {there[1]} channels, and {name} was built for {here[1]}. Give a mean and a std of "
            f"{there[1]} values each: --teacher_mean and --teacher_std (teacher, evaluate: --mean, --std)."
        )
    return f"The names are those of {name}, but its layers have other widths: name the variant that the weights are of."


def _without_classifier(theirs: State, own: State, keys: Sequence[str]) -> Sequence[str]:
    """The keys that differ in more than the number of classes: where there are any, they decide what to do first."""
    counts, others = Counter[tuple[int, int]](), list[str]()
    for key in keys:
        there, here = _shape(theirs[key]), _shape(own[key])
        if len(there) == len(here) > 0 and there[1:] == here[1:] and not any(part in key for part in _POSITIONS):
            counts[there[0], here[0]] += 1
        else:
            others.append(key)
    return others if others and len(counts) == 1 else keys


def _side_of(there: tuple[int, ...], here: tuple[int, ...], side: int | None) -> int | None:
    """The image side that a position embedding [1, N, D] is for, given the one that another is for."""
    if side is None or len(there) != 3 or len(here) != 3:
        return None
    for extra in (1, 0, 2, 5):  # tokens beside those of patches: class, none, distillation, registers
        grids = [math.isqrt(max(shape[1] - extra, 0)) for shape in (there, here)]
        square = all(g * g == shape[1] - extra and g for g, shape in zip(grids, (there, here), strict=True))
        if square and side * grids[0] % grids[1] == 0:
            return side * grids[0] // grids[1]
    return None


def quantised(theirs: State, own: State) -> bool:
    """Whether the tensors hold integers where the network has numbers, or what quantised layers keep beside them."""
    return any(
        value.is_quantized
        or "_packed_params" in key
        or key.endswith("zero_point")
        or (key in own and own[key].is_floating_point() and not (value.is_floating_point() or value.is_complex()))
        for key, value in theirs.items()
    )
