"""`sskd probe`: how well frozen features tell the classes of other data apart."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sskd.analyses.features import tapped
from sskd.analyses.files import keep, made_by
from sskd.analyses.linear import Linear, best_of, fit, neighbours, voted
from sskd.data import load_source
from sskd.data.crops import Crops
from sskd.data.decoded import default_workers
from sskd.data.prepare import image_shape, make_feed
from sskd.data.source import ImageSet, Source
from sskd.data.streams import Stream
from sskd.data.subsets import validation_split
from sskd.errors import UserError
from sskd.files import make_folder, write_json
from sskd.jobs.adopt import as_evaluated
from sskd.jobs.job import restored
from sskd.jobs.teachers import describe, pick_device
from sskd.models.load import Brought, Facts, load_network
from sskd.models.network import Network
from sskd.reading import Reading
from sskd.runs import Run
from sskd.seeds import generator_at

PENALTIES = tuple(10.0**power for power in range(1, -7, -1))  # the strongest first; each begins where the last ended
NEIGHBOURS = (1, 5, 10, 20, 50, 100, 200)
BATCH = 256


class Features(NamedTuple):
    """Frozen features of a data set, in float64 on the CPU."""

    train: Float[Tensor, "N D"]
    train_labels: Int64[Tensor, "N"]
    test: Float[Tensor, "M D"]
    test_labels: Int64[Tensor, "M"]


def probe(
    network: str,
    data: str,
    side: Literal["student", "teacher"] = "student",
    architecture: str | None = None,
    classes: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    size: int | None = None,
    images: int = 50_000,
    validation: float = 0.1,
    seed: int = 0,
    reading: Reading = Reading(),  # noqa: B008  # frozen
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure a network's frozen features on a data set, by a linear classifier and by nearest neighbours.

    The result is written to RUN/analyses/probe-DATA.json where the network is a run's.

    Args:
        network: a run directory, or any network that `sskd evaluate` takes; the word --network may be left out.
        data: the data set to probe on (see `sskd list data`): digits, FAMILY:PATH, or a folder.
        side: of a run: its student, or the teacher that it was distilled from.
        architecture: the network of a bare weights file.
        classes: of a bare weights file, for how many classes its classifier is.
        mean: the network's normalisation, per channel for pixels in [0, 1], where its weights do not state it.
        std: see mean.
        size: pixels, the side of the images that the network is given; see `sskd evaluate`.
        images: training images at most, and test images at most, drawn at random where there are more.
        validation: share or number of the training images on which the penalty and the number of neighbours are chosen.
        seed: of the images drawn and of the validation split.
        reading: how the data set is read; reading.label says which labels are meant, where there are several kinds.
        out: a file to write to, instead.
        device: auto, cpu, cuda or cuda:N.

    Returns:
        What probe-DATA.json holds.

    Raises:
        UserError: anything that the caller can put right.
    """
    if images < 1 or validation <= 0:
        raise UserError(f"images must be at least 1 and validation above 0; got {images} and {validation}.")
    if Path(network).is_file() and classes is None:
        raise UserError(f"{network} holds weights alone. Say for how many classes its classifier is: --classes N.")
    where = torch.device(pick_device(device))
    brought, names = Brought(network, architecture, mean, std), tuple(map(str, range(classes or 0)))
    if side == "teacher":
        brought, names = _teacher_of(network)
    loaded = load_network(brought, Facts(names, 3, None))
    source = load_source(data, reading)
    features, shape = _extracted(loaded, source, size, images, seed, where)
    name = "-".join([source.name, *([reading.label] if reading.label else []), *_part_of(reading)])
    found = {
        "kind": "probe",
        "data": name,
        "network": network,
        "side": side,
        "architecture": loaded.architecture,
        **{key: describe(loaded)[key] for key in ("weights", "mean", "std", "normalisation_from")},
        **_measured(features, source.class_names, validation, seed),
        "notes": [*source.notes, *_conversions(loaded, shape)],
        **made_by(),
    }
    _write(found, network, f"probe-{name}{'-teacher' if side == 'teacher' else ''}", out)
    return found


def _part_of(reading: Reading) -> list[str]:
    return [] if reading.classes is None else [f"{len(reading.classes)}-classes"]


def _teacher_of(run: str) -> tuple[Brought, tuple[str, ...]]:
    """Where the run's teacher lies, as the run took it, and the classes that a bare weights file is for."""
    config = Run(Path(run)).config() or {}
    if "arguments" not in config:
        raise UserError(f"{run} is no run directory, so it has no teacher. Give the teacher itself as the network.")
    teacher = restored(Path(run), config["arguments"]).teacher
    if teacher is None:
        raise UserError(f"{run} was trained without a teacher. Give a network itself, without --side teacher.")
    mean, std = (tuple(config["teacher"][key]) for key in ("mean", "std"))
    return replace(teacher, mean=mean, std=std), tuple(config["class_names"])


def _extracted(
    network: Network, source: Source, size: int | None, most: int, seed: int, device: torch.device
) -> tuple[Features, tuple[int, int, int]]:
    """The features of training and test images, and the shape of the images that the network is given."""
    drawn = [_drawn(images, most, seed, source) for images in (source.train, source.test)]
    sets, crops = as_evaluated(drawn, network, size)
    shape = image_shape(sets[0], crops)
    if "pooled" not in network.shapes(shape):
        raise UserError(f"There are no features to probe: {network.left_out['pooled']}")
    network.to(device).eval()
    train, test = (_pooled(network, images, crops, device) for images in sets)
    return Features(train, sets[0].labels, test, sets[1].labels), shape


def _drawn(images: ImageSet, most: int, seed: int, source: Source) -> ImageSet:
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


def _measured(features: Features, names: tuple[str, ...], validation: float, seed: int) -> dict[str, Any]:
    """Both classifiers: chosen on validation images, then given all training images and measured on the test images."""
    fitted, held_out = validation_split(features.train_labels, validation, seed, names)
    test_share = torch.bincount(features.test_labels).max() / len(features.test_labels)
    return {
        "classes": len(names),
        "most_frequent_class": float(test_share),
        "protocol": {
            "features": "the input of the network's classifier, in eval mode, images whole and without augmentation",
            "dimensions": features.train.shape[1],
            "training_images": len(features.train),
            "validation_images": len(held_out),
            "test_images": len(features.test),
            "seed": seed,
            "linear": "multinomial logistic regression by L-BFGS on features brought to mean 0 and deviation 1 on the "
            "training images; penalty / 2 x squared weights, chosen on the validation images (stratified), the "
            "strongest of equals; fitted again with them, then tested once",
            "penalties": list(PENALTIES),
            "knn": "majority among the k nearest by cosine, ties to the nearest; k chosen on the validation images, "
            "the smallest of equals; then the neighbours are all training images",
        },
        "linear": _linear(features, fitted, held_out, len(names)),
        "knn": _nearest(features, fitted, held_out, len(names)),
    }


def _linear(
    features: Features, fitted: Int64[Tensor, "T"], held_out: Int64[Tensor, "V"], classes: int
) -> dict[str, Any]:
    mean, deviation = features.train.mean(0), features.train.std(0).clamp(min=1e-12)
    train, test = ((values - mean) / deviation for values in (features.train, features.test))
    labels, tried, last = features.train_labels, list[Linear](), None
    for penalty in PENALTIES:
        last = fit(train[fitted], labels[fitted], classes, penalty, last)
        tried.append(last)
    scores = [one.top1(train[held_out], labels[held_out]) for one in tried]
    best = best_of(scores)
    final = fit(train, labels, classes, PENALTIES[best], tried[best])
    return {
        "top1": final.top1(test, features.test_labels),
        "train_top1": final.top1(train, labels),
        "validation_top1": scores[best],
        "regularisation": PENALTIES[best],
        "tried": [{"penalty": penalty, "validation_top1": s} for penalty, s in zip(PENALTIES, scores, strict=True)],
    }


def _nearest(
    features: Features, fitted: Int64[Tensor, "T"], held_out: Int64[Tensor, "V"], classes: int
) -> dict[str, Any]:
    train, labels = features.train, features.train_labels
    numbers = [k for k in NEIGHBOURS if k <= len(fitted)]
    near = neighbours(train[fitted], labels[fitted], train[held_out], numbers[-1])
    scores = [_share(voted(near, k, classes), labels[held_out]) for k in numbers]
    k = numbers[best_of(scores)]
    near = neighbours(train, labels, features.test, k)
    return {
        "k": k,
        "top1": _share(voted(near, k, classes), features.test_labels),
        "validation_top1": max(scores),
        "tried": [{"k": k, "validation_top1": score} for k, score in zip(numbers, scores, strict=True)],
    }


def _share(predicted: Int64[Tensor, "N"], labels: Int64[Tensor, "N"]) -> float:
    return float((predicted == labels).double().mean())


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
