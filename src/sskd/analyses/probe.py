"""`sskd probe`: how well frozen features tell the classes of other data apart."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sskd.analyses.features import tapped
from sskd.analyses.files import keep, made_by
from sskd.analyses.protocol import Features, measured
from sskd.data import load_source
from sskd.data.crops import Crops
from sskd.data.decoded import default_workers
from sskd.data.images import Images
from sskd.data.prepare import image_shape, make_feed
from sskd.data.source import ImageSet, Indexed, Source
from sskd.data.streams import Stream
from sskd.errors import UserError
from sskd.files import make_folder, write_json
from sskd.jobs.adopt import as_evaluated
from sskd.jobs.job import restored
from sskd.jobs.teachers import describe, pick_device
from sskd.models.load import Brought, Facts, load_network
from sskd.models.network import Network
from sskd.ranges import LARGEST_SIDE, need_between, need_bool
from sskd.reading import Reading
from sskd.run_files import START_ANEW
from sskd.runs import Run
from sskd.seeds import generator_at
from sskd.validation import convert

PIXELS = "pixels"  # in the place of a network: the images themselves
SIDE = 32  # to which they are then reduced
BATCH = 256


def probe(
    network: str,
    data: str,
    side: Literal["student", "teacher"] = "student",
    architecture: str | None = None,
    classes: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    size: int | None = None,
    weights: str | None = None,
    images: int = 50_000,
    validation: float = 0.1,
    seed: int = 0,
    reading: Reading = Reading(),  # noqa: B008  # frozen
    out: str | None = None,
    device: str = "auto",
    trust_code: bool = False,
) -> dict[str, Any]:
    """Measure a network's frozen features on a data set, by a linear classifier and by nearest neighbours.

    The result is written to RUN/analyses/probe-DATA.json where the network is a run's.

    Args:
        network: a run directory, or any network that `sskd evaluate` takes; or the word pixels, for the images
            themselves, reduced to 32 pixels: what a network's features have to be better than. The word --network may
            be left out.
        data: the data set to probe on (see `sskd list data`): digits, FAMILY:PATH, or a folder.
        side: of a run: its student, or the teacher that it was distilled from.
        architecture: the network of a bare weights file.
        classes: of a bare weights file, for how many classes its classifier is.
        mean: the network's normalisation, per channel for pixels in [0, 1], where its weights do not state it.
        std: see mean.
        size: pixels, the side of the images that the network is given; see `sskd evaluate`.
        weights: of a weights file that holds several: ema, plain, or their prefix in the file.
        images: training images at most, and test images at most, drawn at random where there are more.
        validation: share or number of the training images on which the penalty and the number of neighbours are chosen.
        seed: of the images drawn and of the validation split.
        reading: how the data set is read; reading.label says which labels are meant, where there are several kinds.
        out: a file to write to, instead.
        device: auto, cpu, cuda or cuda:N.
        trust_code: run the function that a folder names as its architecture, or code that a run's config names; such
            folders are refused otherwise, unless the command names the same function.

    Returns:
        What probe-DATA.json holds.

    Raises:
        UserError: anything that the caller can put right.
    """
    need_between("images", images, 1)
    need_between("validation", validation, 0, ends="(]")
    need_between("classes", classes, 1)
    need_between("size", size, 1, LARGEST_SIDE)
    need_bool("trust_code", trust_code)
    reading = convert(reading, Reading, "reading")
    if Path(network).is_file() and classes is None:
        raise UserError(f"{network} holds weights alone. Say for how many classes its classifier is: --classes N.")
    source = load_source(data, reading)
    sets = [_drawn(one, images, seed, source) for one in (source.train, source.test)]
    name = "-".join([source.name, *([reading.label] if reading.label else []), *_part_of(reading)])
    found: dict[str, Any] = {"kind": "probe", "data": name, "network": network, "side": side}
    if network == PIXELS:
        features, about, notes = _raw(sets), {"architecture": PIXELS, "weights": None}, list[str]()
    else:
        brought = Brought(network, architecture, mean, std, weights=weights)
        names = tuple(map(str, range(classes or 0)))
        if side == "teacher":
            brought, names = _teacher_of(network, trust_code)
        loaded = load_network(brought, Facts(names, 3, None), trust_code)
        features, shape = _extracted(loaded, sets, size, torch.device(pick_device(device)))
        about, notes = describe(loaded), [*loaded.notes, *_conversions(loaded, shape)]
        del about["order"]  # of its own classes
    found |= {**about, **measured(features, source.class_names, validation, seed)}
    found |= {"notes": [*source.notes, *notes], **made_by()}
    _write(found, network, f"probe-{name}{'-teacher' if side == 'teacher' else ''}", out)
    return found


def _part_of(reading: Reading) -> list[str]:
    return [] if reading.classes is None else [f"{len(reading.classes)}-classes"]


def _teacher_of(run: str, trust_code: bool) -> tuple[Brought, tuple[str, ...]]:
    """Where the run's teacher lies, as the run took it, and the classes that a bare weights file is for."""
    config = Run(Path(run)).config() or {}
    if "arguments" not in config:
        raise UserError(f"{run} is no run directory, so it has no teacher. Give the teacher itself as the network.")
    teacher = restored(Path(run), config["arguments"], trust_code).teacher
    if teacher is None:
        raise UserError(f"{run} was trained without a teacher. Give a network itself, without --side teacher.")
    told, names = config.get("teacher", {}), config.get("class_names")
    if names is None or "mean" not in told or "std" not in told:
        raise UserError(f"{run}/config.json does not say how the teacher was taken. {START_ANEW}")
    return replace(teacher, mean=tuple(told["mean"]), std=tuple(told["std"])), tuple(names)


def _extracted(
    network: Network, drawn: Sequence[ImageSet], size: int | None, device: torch.device
) -> tuple[Features, tuple[int, int, int]]:
    """The features of training and test images, and the shape of the images that the network is given."""
    sets, crops = as_evaluated(drawn, network, size)
    shape = image_shape(sets[0], crops)
    if "pooled" not in network.shapes(shape):
        raise UserError(f"There are no features to probe: {network.left_out['pooled']}")
    network.to(device).eval()
    train, test = (_pooled(network, images, crops, device) for images in sets)
    return Features(train, sets[0].labels, test, sets[1].labels), shape


def _raw(sets: list[Indexed]) -> Features:
    """The images' own values."""
    values, labels = list[Tensor](), list[Tensor]()
    for images in sets:
        small = images.reduced(SIDE) if isinstance(images, Images) else images.stored(SIDE)
        values.append(small.pixels.flatten(1).double() / 255)
        labels.append(small.labels)
    return Features(values[0], labels[0], values[1], labels[1])


def _drawn(images: ImageSet, most: int, seed: int, source: Source) -> Indexed:
    if isinstance(images, Stream):
        raise UserError(f"{source.name} is read as a stream, which cannot be split. Leave --reading.stream out.")
    if len(images) <= most:
        return images
    chosen = torch.randperm(len(images), generator=generator_at("probe", seed))[:most]
    return images.take(chosen.sort().values)


def _pooled(network: Network, images: ImageSet, crops: Crops, device: torch.device) -> Float[Tensor, "N D"]:
    feed = make_feed(images, crops, device, default_workers())
    with tapped(network, "pooled") as read:
        values = [read(cut.pixels[:, 0].float() / 255)["pooled"].cpu() for cut in feed.whole(BATCH)]
    return torch.cat(values).double()


def _conversions(network: Network, shape: tuple[int, int, int]) -> list[str]:
    """What the network makes of images of another kind than its own."""
    channels, side = shape[0], shape[-1]
    notes = []
    if channels != network.channels:
        how = "made grey" if network.channels == 1 else "repeated"
        notes.append(f"The images have {channels} channels, the network takes {network.channels}: they are {how}.")
    if network.size not in (None, side):
        notes.append(f"The images are {side} pixels wide, the network takes {network.size}: they are resized.")
    return notes


def _write(found: dict[str, Any], network: str, name: str, out: str | None) -> None:
    """To `out`, or beside the run; other networks have no place of their own."""
    if out is not None:
        make_folder(Path(out).parent)
        write_json(Path(out), found)
        found["kept"] = out
    elif (Path(network) / "result.json").is_file():
        found["kept"] = str(keep(Path(network), re.sub(r"[^\w.-]+", "-", name), found, {}))
