"""From a name to a backbone: the zoo, timm, torchvision, or the user's own factory."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import timm
import torchvision
from timm.models import get_pretrained_cfg, split_model_name_tag
from torch import nn

from sskd.errors import UserError, unknown
from sskd.hub import quick_hub
from sskd.importing import import_attribute, user_code
from sskd.models.folders import (
    TORCHVISION,
    architecture_of,
    is_factory,
    place_folder,
    read_folder_config,
)
from sskd.models.normalisation import Normalisation
from sskd.models.zoo import TIMM_PLACES, resolve

AUXILIARY = ("googlenet", "inception_v3")  # in training they return several outputs, unless they are told not to


WITHOUT_NETWORK = (
    "Where there is no network, bring the weights as a file and say which network they are of, or as local-dir:FOLDER."
)


class Built(NamedTuple):
    """A backbone, and what is known of the images that it takes."""

    backbone: nn.Module
    channels: int
    size: int | None  # pixels; None where any size will do
    normalisation: Normalisation | None  # None where nothing is recorded
    arguments: Mapping[str, Any] = {}  # with which timm makes it again


def build(
    name: str,
    classes: int,
    channels: int,
    size: int | None = None,
    pretrained: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> Built:
    """A backbone with a classifier of so many classes; `size` is the side of the images that it will see.

    `name` is what `resolve` understands, `torchvision:NAME`, or `package.module:factory`. With `pretrained` it comes
    with the weights that the name stands for (downloaded, unless they are there), with their own number of classes.
    `arguments` are for timm's networks.

    Raises:
        UserError: an unknown name or tag, a folder or hub address that cannot be read, arguments that do not fit.
    """
    try:
        if name.startswith(TORCHVISION):
            return _torchvision(name.removeprefix(TORCHVISION), classes, size, pretrained)
        if is_factory(name):
            return _factory(name, classes, channels)
        if name.startswith(TIMM_PLACES):
            return _at_place(name, classes, channels, size, pretrained)
        return _timm(resolve(name), classes, channels, size, pretrained, dict(arguments or {}))
    except UserError:
        raise
    except Exception as error:  # these libraries raise whatever their models, the hub or the file system raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"The weights of {name} cannot be had: {reason}. {WITHOUT_NETWORK}"
            if pretrained
            else f"The network {name} cannot be built for {classes} classes and {channels} channels: {reason}. "
            "Check the name, tag or folder; sskd list models shows the zoo."
        ) from error


def _at_place(place: str, classes: int, channels: int, size: int | None, pretrained: bool) -> Built:
    """The network that a folder or a repository of the hub describes; of what it says, only what shapes a network."""
    file = place_folder(place, "config.json") / "config.json"
    config = read_folder_config(file)
    architecture = architecture_of(config, file)
    if pretrained:
        where = {"source": "hf-hub", "hf_hub_id": place.removeprefix("hf-hub:"), "architecture": architecture}
        arguments: dict[str, Any] = {**config.arguments, "pretrained_cfg": {**config.settings, **where}}
        return _timm(architecture, classes, channels, size, True, arguments)
    return build(architecture, classes, channels, size, arguments={**config.arguments, "in_chans": channels})


def _timm(
    name: str, classes: int, channels: int, size: int | None, pretrained: bool, arguments: dict[str, Any]
) -> Built:
    if pretrained:
        quick_hub(name)
        backbone = timm.create_model(name, pretrained=True, **arguments)
        record: Any = backbone.pretrained_cfg
        normalisation = Normalisation(tuple(record["mean"]), tuple(record["std"]), f"the weights of {name}")
        return Built(backbone, len(normalisation.mean), int(record["input_size"][-1]), normalisation)
    arguments = {"in_chans": channels, **arguments}
    fixed = get_pretrained_cfg(split_model_name_tag(name)[0])
    if size is not None and fixed is not None and fixed.fixed_input_size:
        try:  # its position embedding can be made for another size
            sized = {**arguments, "img_size": size}
            return Built(timm.create_model(name, **sized, num_classes=classes), channels, size, None, sized)
        except (TypeError, AssertionError, ValueError, RuntimeError):  # or cannot: then images are resized for it
            native = int(fixed.input_size[-1])
            return Built(timm.create_model(name, **arguments, num_classes=classes), channels, native, None, arguments)
    backbone = timm.create_model(name, **arguments, num_classes=classes)
    return Built(backbone, int(arguments["in_chans"]), None, None, arguments)


def _torchvision(name: str, classes: int, size: int | None, pretrained: bool) -> Built:
    known = torchvision.models.list_models(torchvision.models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    if not pretrained:
        given: dict[str, Any] = {"image_size": size} if name.startswith("vit") and size is not None else {}
        given |= {"aux_logits": False, "init_weights": True} if name in AUXILIARY else {}
        return Built(torchvision.models.get_model(name, num_classes=classes, **given), 3, None, None)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    made = weights.transforms()
    record = Normalisation(tuple(made.mean), tuple(made.std), f"torchvision's weights of {name}")
    return Built(torchvision.models.get_model(name, weights=weights), 3, int(made.crop_size[0]), record)


def _factory(name: str, classes: int, channels: int) -> Built:
    """Call the user's function with as much of (num_classes, in_chans) as it takes."""
    form = "Say package.module:function, of a module in the working folder or on Python's path."
    factory = import_attribute(name, f"network {name}", form)
    offered = {"num_classes": classes, "in_chans": channels}
    failing = f"The network {name} cannot be built for {classes} classes and {channels} channels"
    with user_code(failing, "Its function is called with as much of num_classes and in_chans as it takes."):
        takes = inspect.signature(factory).parameters
        free = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values())
        backbone = factory(**{key: value for key, value in offered.items() if free or key in takes})
    if not isinstance(backbone, nn.Module):
        raise UserError(f"{name} must return a torch.nn.Module; it returned a {type(backbone).__name__}.")
    return brought(backbone, name, channels if free or "in_chans" in takes else None)


def brought(backbone: nn.Module, name: str, channels: int | None) -> Built:
    """A user's module, with the `mean`, `std` and `size` that it states as attributes, if it does."""
    mean, std, size = (getattr(backbone, key, None) for key in ("mean", "std", "size"))
    normalisation = None
    if isinstance(mean, list | tuple) and isinstance(std, list | tuple):
        normalisation = Normalisation(tuple(map(float, mean)), tuple(map(float, std)), f"{name} itself")
        channels = channels or len(mean)
    return Built(backbone, channels or 3, size if isinstance(size, int) else None, normalisation)
