"""Networks that are there already: runs, folders, weights files, and what hubs and libraries hold."""

import json
from dataclasses import dataclass
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo
from timm.models import is_model, split_model_name_tag
from torch import nn

from sskd.errors import UserError
from sskd.models.build import TORCHVISION, Built, brought, build
from sskd.models.checkpoints import load_strictly, read_state
from sskd.models.network import Network, assembled
from sskd.models.normalisation import Normalisation
from sskd.models.zoo import resolve

WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class Facts:
    """What the data says, for weights that do not say it themselves.

    `published` is the normalisation that networks for this data are published with; None where there is none.
    """

    class_names: tuple[str, ...]
    channels: int
    published: Normalisation | None


@dataclass(frozen=True)
class Brought:
    """Where a network comes from, and what its weights cannot say about it.

    `place`: a run directory, a folder as timm writes it, a weights file, `hf-hub:` or `local-dir:` addresses, or the
    name of published weights (timm's, with its tag, or `torchvision:NAME`).
    """

    place: str
    architecture: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None

    def stated(self) -> Normalisation | None:
        """The normalisation in the arguments.

        Raises:
            UserError: half of it.
        """
        if (self.mean is None) != (self.std is None):
            raise UserError("A normalisation needs both a mean and a std for each channel; only one of them was given.")
        return Normalisation(self.mean, self.std, "the arguments") if self.mean and self.std else None


def load_network(brought: Brought, facts: Facts) -> Network:
    """The network, with its own class names and normalisation.

    Raises:
        UserError: nothing that can be loaded is there, the run is not finished, the weights do not fit, or nobody
            says how the network wants its images normalised.
    """
    place, path = brought.place, Path(brought.place.removeprefix("local-dir:"))
    if place.startswith(("hf-hub:", TORCHVISION)):
        return _restated(_published(place, facts), brought)
    if path.is_dir():
        return _restated(_as_named(load_folder(network_folder(path)), brought), brought)
    if path.is_file() or path.suffix in WEIGHTS:
        return _from_file(path, brought, facts)
    if is_model(split_model_name_tag(place)[0]):
        return _restated(_as_named(_published(place, facts), brought), brought)
    raise UserError(
        f"There is no network at {place}. Give a run directory, a folder with config.json and model.safetensors, a "
        "weights file (with its architecture), hf-hub:OWNER/NAME, or the name of weights that timm or torchvision has."
    )


def _as_named(network: Network, brought: Brought) -> Network:
    """The network, if it is the one that was named beside its place."""
    named = brought.architecture
    if named is not None and split_model_name_tag(resolve(named))[0] != split_model_name_tag(network.architecture)[0]:
        raise UserError(
            f"{brought.place} holds a {network.architecture}, not a {named}. It says itself what it holds: leave the "
            "architecture out, or give another place."
        )
    return network


def network_folder(path: Path) -> Path:
    """Where a run directory keeps its network; any other folder is one itself.

    Raises:
        UserError: the run is not finished.
    """
    inner = path / "student"
    if (inner / "config.json").is_file():
        return inner
    config = path / "config.json"
    if config.is_file() and '"arguments":' in config.read_text(errors="replace"):
        raise UserError(f"The run {path} is not finished: it has no {inner}. Repeat its command to finish it first.")
    return path


def load_folder(folder: Path) -> Network:
    """A network that `save_network` or timm has written: architecture, classes and normalisation come with it.

    Raises:
        UserError: a damaged or incomplete folder, or weights that do not fit its architecture.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        architecture, settings = str(config["architecture"]), config["pretrained_cfg"]
        class_names = tuple(config.get("label_names") or map(str, range(config["num_classes"])))
        mean, std = (tuple(map(float, settings[key])) for key in ("mean", "std"))
        size, crop_pct = int(settings["input_size"][-1]), float(settings.get("crop_pct") or 1.0)
        arguments = {k: v for k, v in dict(config.get("model_args", {})).items() if k != "num_classes"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}/config.json is missing or damaged ({error!r}). A network's folder holds config.json and "
            "model.safetensors, as a finished run writes them to its student/."
        ) from error
    normalisation = Normalisation(mean, std, f"{folder}/config.json")
    built = build(architecture, len(class_names), len(mean), **arguments)
    load_strictly(built.backbone, read_state(folder / "model.safetensors"), architecture)
    built = built._replace(normalisation=normalisation, size=size)
    network = assembled(architecture, built, class_names, normalisation)
    network.crop_pct = crop_pct
    return network


def _from_file(path: Path, brought: Brought, facts: Facts) -> Network:
    state = read_state(path)
    if brought.architecture is None:
        raise UserError(
            f"{path} holds weights alone. Say which network they are of: --teacher_architecture NAME "
            "(teacher: --model NAME, evaluate: --architecture NAME)."
        )
    stated = brought.stated() or facts.published
    built = build(brought.architecture, len(facts.class_names), len(stated.mean) if stated else facts.channels)
    normalisation = brought.stated() or built.normalisation or facts.published
    if normalisation is None:
        raise UserError(
            f"{path} does not say how {brought.architecture} wants its images normalised. Give the mean and std per "
            "channel, for pixels from 0 to 1, that it was trained with: --teacher_mean '[...]' --teacher_std '[...]' "
            "(teacher and evaluate: --mean, --std). Without any normalisation they are '[0, 0, 0]' and '[1, 1, 1]'."
        )
    load_strictly(built.backbone, state, resolve(brought.architecture))
    built = built._replace(normalisation=normalisation, size=brought.size or built.size)
    return assembled(resolve(brought.architecture), built, facts.class_names, normalisation)


def _published(place: str, facts: Facts) -> Network:
    built = build(place, len(facts.class_names), facts.channels, pretrained=True)
    if built.normalisation is None:
        raise UserError(f"{place} is a function, not weights. Give its weights file, and {place} as the architecture.")
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
    return tuple(map(str, range(classes)))


def _restated(network: Network, brought: Brought) -> Network:
    """With what the arguments say instead of what the weights' record says."""
    normalisation, size = brought.stated() or network.normalisation, brought.size or network.size
    built = Built(network.backbone, network.channels, size, normalisation, network.arguments)
    restated = assembled(network.architecture, built, network.class_names, normalisation)
    restated.crop_pct = network.crop_pct
    return restated


def from_module(module: nn.Module, name: str, stated: Brought, facts: Facts) -> Network:
    """A user's module, with the weights that it has.

    Raises:
        UserError: nobody says how it wants its images normalised.
    """
    built: Built = brought(module, name, None)
    normalisation = stated.stated() or built.normalisation or facts.published
    if normalisation is None:
        raise UserError(
            f"The module {name} does not say how it wants its images normalised: give teacher_mean and teacher_std, or "
            "set its attributes mean and std (per channel, for pixels from 0 to 1)."
        )
    built = built._replace(normalisation=normalisation, size=stated.size or built.size)
    return assembled(name, built, facts.class_names, normalisation)
