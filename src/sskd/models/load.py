"""Networks that are there already: runs, folders, weights files, and what hubs and libraries hold."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from timm.data.imagenet_info import ImageNetInfo
from timm.models import is_model, split_model_name_tag
from torch import nn

from sskd.errors import UserError
from sskd.models.build import Built, brought, build
from sskd.models.checkpoints import load_strictly, read_containers
from sskd.models.folders import (
    FUNCTION,
    TORCHVISION,
    WEIGHTS_FILES,
    architecture_of,
    is_factory,
    network_folder,
    place_folder,
    read_folder_config,
    unnamed,
    weights_file,
)
from sskd.models.matching import Containers, Match, classes_of, match
from sskd.models.misfit import differing_shapes
from sskd.models.network import Network, assembled
from sskd.models.normalisation import Normalisation
from sskd.models.soundness import refuse_not_finite
from sskd.models.zoo import resolve
from sskd.validation import convert

WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class Facts:
    """What the data says, for weights that do not say it themselves.

    `published` is the normalisation that networks for this data are published with; None where there is none. `side`
    is that of the images in pixels, where it is known: transformers may have been made for it.
    """

    class_names: tuple[str, ...]
    channels: int
    published: Normalisation | None
    side: int | None = None


@dataclass(frozen=True)
class Brought:
    """Where a network comes from, and what its weights cannot say about it.

    `place`: a run directory, a folder as timm writes it, a weights file, `hf-hub:` or `local-dir:` addresses, or the
    name of published weights (timm's, with its tag, `torchvision:NAME`, or a function package.module:factory that
    returns a network with its weights). `weights`: which of a file that holds several: ema, plain, or their prefix.
    """

    place: str
    architecture: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Brought).items():
            convert(getattr(self, name), kind, f"{self.place}, {name}")

    def stated(self) -> Normalisation | None:
        """The normalisation in the arguments.

        Raises:
            UserError: half of it.
        """
        if (self.mean is None) != (self.std is None):
            raise UserError("A normalisation needs both a mean and a std for each channel; only one of them was given.")
        return Normalisation(self.mean, self.std, "the arguments") if self.mean and self.std else None


def load_network(brought: Brought, facts: Facts, trust_code: bool = False) -> Network:
    """The network, with its own class names and normalisation.

    Code that a folder names as its architecture is run only where `brought` names it, too, or with `trust_code`.

    Raises:
        UserError: nothing that can be loaded is there, the run is not finished, the weights do not fit or are not
            finite, code that is not trusted, or nobody says how the network wants its images normalised.
    """
    network = _loaded(brought, facts, trust_code)
    refuse_not_finite(network, brought.place)
    return network


def _loaded(brought: Brought, facts: Facts, trust_code: bool) -> Network:
    place, path = brought.place, Path(brought.place.removeprefix("local-dir:"))
    published = place.startswith(TORCHVISION) or FUNCTION.fullmatch(place) or is_model(split_model_name_tag(place)[0])
    if brought.weights is not None and published and not path.exists():
        raise _one_set(place, brought.weights)
    if place.startswith("hf-hub:"):
        return _restated(_from_hub(brought, facts, trust_code), brought)
    if place.startswith(TORCHVISION):
        return _restated(_published(place, facts), brought)
    if path.is_dir():
        network = load_folder(network_folder(path), brought.architecture, trust_code, brought.weights)
        return _restated(_as_named(_named_by_data(network, facts), brought), brought)
    if path.is_file() or path.suffix in WEIGHTS:
        return _from_file(path, brought, facts)
    if FUNCTION.fullmatch(place):
        return _from_factory(brought, facts)
    if is_model(split_model_name_tag(place)[0]):
        return _restated(_as_named(_published(place, facts), brought), brought)
    raise UserError(
        f"There is no network at {place}. Give a run directory, a folder with config.json and model.safetensors, a "
        "weights file (with its architecture), hf-hub:OWNER/NAME, or the name of weights that timm or torchvision has."
    )


def _named_by_data(network: Network, facts: Facts) -> Network:
    """Classes without names are the data's, in its order, where there are as many: the same as for a weights file."""
    count = len(facts.class_names)
    if network.class_names == unnamed(count) != facts.class_names:
        network.class_names = facts.class_names
        network.notes += (f"The weights name none of their {count:,} classes: they are taken in the data's order.",)
    return network


def _as_named(network: Network, brought: Brought) -> Network:
    """The network, if it is the one that was named beside its place."""
    named = brought.architecture
    if named is not None and split_model_name_tag(resolve(named))[0] != split_model_name_tag(network.architecture)[0]:
        raise UserError(
            f"{brought.place} holds a {network.architecture}, not a {named}. It says itself what it holds: leave the "
            "architecture out, or give another place."
        )
    return network


def _one_set(place: object, weights: str) -> UserError:
    return UserError(f"{place} brings one set of weights, so none is chosen by the name {weights!r}: leave it out.")


def load_folder(
    folder: Path, architecture: str | None = None, trust_code: bool = False, weights: str | None = None
) -> Network:
    """A network that `save_network` or timm has written: architecture, classes and normalisation come with it.

    Where the folder names a function of somebody's own (package.module:function), `architecture` has to name it, too,
    or `trust_code` be set: building the network runs that function. `weights`: see `Brought`.

    Raises:
        UserError: a damaged or incomplete folder, code that is not trusted, weights that do not fit or are not there.
    """
    file = folder / "config.json"
    config = read_folder_config(file)
    name = architecture_of(config, file, architecture, trust_code)
    normalisation = Normalisation(config.mean, config.std, str(file))
    path = weights_file(folder)
    containers = read_containers(path)
    side = config.size if name.startswith(TORCHVISION) else None  # timm's networks have it among their arguments
    built = build(name, len(config.class_names), len(config.mean), side, arguments=config.arguments)
    notes: tuple[str, ...] = ()
    if config.ours and weights is not None:
        raise _one_set(folder, weights)
    if config.ours:
        state = containers.get((), {})  # as we wrote it: no name is guessed
    else:
        found, said = match(containers, built.backbone.state_dict(), weights, name, str(path))
        state, notes = found.state, (said,) if said else ()
    load_strictly(built.backbone, state, name)
    built = built._replace(normalisation=normalisation, size=config.size)
    network = assembled(name, built, config.class_names, normalisation)
    network.crop_pct, network.notes = config.crop_pct, notes
    return network


def _from_hub(brought: Brought, facts: Facts, trust_code: bool) -> Network:
    """A repository of the hub: as timm reads it where the network is timm's, else as a folder."""
    file = place_folder(brought.place, "config.json") / "config.json"
    architecture = read_folder_config(file).architecture
    if is_factory(architecture) or architecture.startswith(TORCHVISION):
        folder = place_folder(brought.place, "config.json", *WEIGHTS_FILES)
        return load_folder(folder, brought.architecture, trust_code, brought.weights)
    if brought.weights is not None:  # timm loads one file of it
        raise _one_set(brought.place, brought.weights)
    return _published(brought.place, facts)


def _from_file(path: Path, brought: Brought, facts: Facts) -> Network:
    containers = read_containers(path)
    if brought.architecture is None:
        raise UserError(
            f"{path} holds weights alone. Say which network they are of (evaluate, probe: --architecture NAME, "
            "distill: --teacher_architecture NAME, teacher: --model NAME). Other commands take a run made of it: "
            f"sskd teacher --init {path} --model NAME --data DATA --epochs 0 --out RUN."
        )
    name, stated = resolve(brought.architecture), brought.stated() or facts.published
    channels = len(stated.mean) if stated else facts.channels
    wanted = containers, path, brought, len(facts.class_names), channels
    built, classes, found, said = _fit(*wanted, brought.size)
    if brought.size is None and facts.side and differing_shapes(found.state, built.backbone.state_dict()):
        other = _fit(*wanted, facts.side)  # of a transformer that was made for images of the data's size
        if not differing_shapes(other[2].state, other[0].backbone.state_dict()):
            built, classes, found, said = other
            built = built._replace(size=facts.side)
            said = f"{said} {path} is of a {name} for images of {facts.side} pixels.".strip()
    load_strictly(built.backbone, found.state, name)
    normalisation = brought.stated() or built.normalisation or facts.published
    if normalisation is None:
        raise UserError(
            f"{path} does not say how {brought.architecture} wants its images normalised. Give the mean and std per "
            "channel, for pixels from 0 to 1, that it was trained with: --teacher_mean '[...]' --teacher_std '[...]' "
            "(teacher, evaluate, probe: --mean, --std). Without any normalisation they are '[0, 0, 0]' and '[1, 1, 1]'."
        )
    built = built._replace(normalisation=normalisation, size=brought.size or built.size)
    names = facts.class_names if classes == len(facts.class_names) else unnamed(classes)
    network = assembled(name, built, names, normalisation)
    network.notes = (said,) if said else ()
    return network


def _fit(
    containers: Containers, path: Path, brought: Brought, classes: int, channels: int, size: int | None
) -> tuple[Built, int, Match, str]:
    """The named network, built for as many classes as the file's; this number, its tensors, and what is to be said."""
    architecture, name = str(brought.architecture), resolve(str(brought.architecture))
    built = build(architecture, classes, channels, size)
    own = built.backbone.state_dict()
    found, said = match(containers, own, brought.weights, name, str(path))
    count = classes_of(found.state, own, classes)
    if count != classes:
        built = build(architecture, count, channels, size)
        said = " ".join([said, f"{path} is for {count:,} classes, which it does not name."]).strip()
    return built, count, found, said


def _from_factory(brought: Brought, facts: Facts) -> Network:
    """The network that a function returns, with the weights that it has."""
    built = build(brought.place, len(facts.class_names), facts.channels)
    network = _of_module(built, brought.place, brought, facts)
    network.notes = (f"The weights are those with which {brought.place} returns its network.",)
    return network


def _published(place: str, facts: Facts) -> Network:
    built = build(place, len(facts.class_names), facts.channels, pretrained=True)
    assert built.normalisation is not None  # published weights state it
    return assembled(resolve(place), built, _names(built.backbone, facts), built.normalisation)


def _names(backbone: nn.Module, facts: Facts) -> tuple[str, ...]:
    """The classes of published weights: as they state them, ImageNet's by synset, or the data's where as many."""
    record = getattr(backbone, "pretrained_cfg", {}) or {}
    if record.get("label_names"):
        return tuple(record["label_names"])
    classes = int(record.get("num_classes") or 1000)
    if classes == len(facts.class_names):
        return facts.class_names
    if classes == 1000:
        known = ImageNetInfo("imagenet-1k")
        return tuple(known.index_to_label_name(i) for i in range(classes))
    return unnamed(classes)


def _restated(network: Network, brought: Brought) -> Network:
    """With what the arguments say instead of what the weights' record says."""
    normalisation, size = brought.stated() or network.normalisation, brought.size or network.size
    built = Built(network.backbone, network.channels, size, normalisation, network.arguments)
    restated = assembled(network.architecture, built, network.class_names, normalisation)
    restated.crop_pct, restated.notes = network.crop_pct, network.notes
    return restated


def from_module(module: nn.Module, name: str, stated: Brought, facts: Facts) -> Network:
    """A user's module, with the weights that it has.

    Raises:
        UserError: nobody says how it wants its images normalised.
    """
    network = _of_module(brought(module, name, None), name, stated, facts)
    refuse_not_finite(network, name)
    return network


def _of_module(built: Built, name: str, stated: Brought, facts: Facts) -> Network:
    normalisation = stated.stated() or built.normalisation or facts.published
    if normalisation is None:
        raise UserError(
            f"{name} does not say how it wants its images normalised: give the mean and std per channel, for pixels "
            "from 0 to 1 (distill: teacher_mean and teacher_std; teacher, evaluate, probe: mean and std), or set them "
            "as attributes of the module."
        )
    built = built._replace(normalisation=normalisation, size=stated.size or built.size)
    return assembled(name, built, facts.class_names, normalisation)
