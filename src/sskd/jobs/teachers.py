"""Networks that are brought along: loaded, fitted to the data's classes, measured, or made ready for fine-tuning."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sskd.data.feed import Feed
from sskd.data.source import Source
from sskd.errors import UserError
from sskd.models.load import Brought, Facts, from_module, load_network
from sskd.models.network import Network, create_network
from sskd.models.normalisation import Normalisation
from sskd.models.soundness import warn_of_probabilities
from sskd.models.taps import Tap, Tapped
from sskd.ranges import need_device
from sskd.train.meters import Meter
from sskd.train.protocols import Record
from sskd.train.step import Execution, accuracy, place, run_network


def pick_device(name: str) -> str:
    """The device that `name` means here.

    Raises:
        UserError: it cannot be used.
    """
    need_device(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"The device {name!r} cannot be used: {str(error).splitlines()[0]}. Try --device auto."
        ) from error
    return name


def facts_of(source: Source, shape: tuple[int, int, int]) -> Facts:
    """What the data, with images of this shape, says for weights that say nothing."""
    published = Normalisation(source.mean, source.std, f"the data set {source.name}") if source.published else None
    return Facts(source.class_names, shape[0], published, shape[-1])


def load_teacher(
    brought: Brought,
    source: Source,
    shape: tuple[int, int, int],
    module: nn.Module | None = None,
    taps: Mapping[str, Tap] = {},
    trust_code: bool = False,
) -> tuple[Network, tuple[str, ...]]:
    """The network, its outputs in the order of the data's classes, and what is worth saying about it.

    Raises:
        UserError: it cannot be loaded, or does not know the data's classes.
    """
    network = brought_network(brought, source, shape, module, trust_code)
    fitted, notes = fit_classes(network, brought.place, source, taps)
    return fitted, (*network.notes, *notes, *warn_of_probabilities(network, brought.place, shape))


def brought_network(
    brought: Brought, source: Source, shape: tuple[int, int, int], module: nn.Module | None, trust_code: bool
) -> Network:
    """The network with its own classes: loaded, or the module that was handed over.

    Raises:
        UserError: it cannot be loaded.
    """
    facts = facts_of(source, shape)
    if module is not None:
        return from_module(module, brought.place, brought, facts)
    return load_network(brought, facts, trust_code)


def fit_classes(
    network: Network, place: str, source: Source, taps: Mapping[str, Tap] = {}
) -> tuple[Network, tuple[str, ...]]:
    """The network with its outputs in the order of the data's classes, matched by name; what is worth saying of it.

    Raises:
        UserError: it does not know all of the data's classes.
    """
    notes: tuple[str, ...] = ()
    order: Sequence[int] | None = None
    theirs, ours = network.class_names, source.class_names
    if theirs != ours:
        if missing := set(ours) - set(theirs):
            raise UserError(_other_classes(place, source, theirs, sorted(missing)))
        order = [theirs.index(name) for name in ours]
        if len(theirs) == len(ours):
            notes = (f"The teacher has the classes in another order ({_few(theirs)}); they are matched by name.",)
        else:
            notes = (f"Of the teacher's {len(theirs)} classes the {len(ours)} of {source.name} are used, by name.",)
    return network.fitted(ours, order, taps), notes


def _other_classes(place: str, source: Source, theirs: Sequence[str], missing: Sequence[str]) -> str:
    extra = sorted(set(theirs) - set(source.class_names))
    return (
        f"The teacher {place} knows {len(theirs)} classes ({_few(theirs)}), the data {source.name} has "
        f"{len(source.class_names)} ({_few(source.class_names)}). Only the teacher has: {_few(extra) or 'none'}; only "
        f"the data has: {_few(missing)}. Fine-tune it on this data: sskd teacher --init {place} --data ..."
    )


def fresh(
    name: str,
    source: Source,
    shape: tuple[int, int, int],
    init: Brought | None,
    taps: Mapping[str, Tap],
    module: nn.Module | None = None,
    trust_code: bool = False,
) -> Network:
    """A network to be trained: newly initialised, or with brought weights and, for other classes, a new classifier.

    Raises:
        UserError: it cannot be built or loaded.
    """
    normalisation = Normalisation(source.mean, source.std, f"the data set {source.name}")
    facts = facts_of(source, shape)
    if module is not None:
        published = facts.published or normalisation
        network = from_module(module, name, Brought(name), Facts(facts.class_names, shape[0], published))
        return network.fitted(source.class_names, None, taps)
    if init is None:
        return create_network(name, source.class_names, shape, normalisation, taps)
    network = load_network(init, facts, trust_code)
    if network.class_names != source.class_names:
        network.replace_classifier(len(source.class_names))
    if not network.fixed_size:
        network.size = None  # it is trained at the data's size from here on
    return network.fitted(source.class_names, None, taps)


def describe(network: Network) -> dict[str, Any]:
    """What identifies a network and its conventions, for a config or a result."""
    return {
        "architecture": network.architecture,
        "weights": network.weights_hash(),
        "mean": list(network.normalisation.mean),
        "std": list(network.normalisation.std),
        "normalisation_from": network.normalisation.origin,
        "size": network.size,
        "order": None if network.order is None else network.order.tolist(),
    }


def measure(network: Network, feed: Feed, execution: Execution) -> Record:
    """Top-1 and top-5 accuracy of a network on all images of a feed."""
    place({"network": network.eval()}, execution)
    tapped, meter = Tapped(network, {}, ()), Meter()
    with torch.no_grad():
        for cut in feed.whole(256):
            logits = run_network(tapped, cut.pixels[:, 0].float() / 255, execution)["logits"]
            meter.update(accuracy(logits, cut.labels), 0, len(cut.labels))
    return dict(meter.read())


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
