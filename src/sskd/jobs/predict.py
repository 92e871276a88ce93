"""Labels for image files, from a run's student or any network in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from sskd.data.decode import reduced, to_pixels
from sskd.data.folder import Files
from sskd.data.image_files import IMAGE_EXTENSIONS, Listing
from sskd.data.pictures import Pictures, refuse_unreadable, unreadable, without
from sskd.data.prepare import PHOTOGRAPH
from sskd.errors import UserError
from sskd.jobs.teachers import pick_device
from sskd.models.load import Brought, Facts, load_network
from sskd.models.network import Network
from sskd.models.soundness import warn_of_probabilities
from sskd.ranges import need_bool


class Prediction(NamedTuple):
    """One of an image's most probable classes."""

    path: str
    rank: int  # from 1
    label: str
    probability: float


def predictions(
    run: str,
    images: Sequence[str],
    top: int = 1,
    skip: Literal["refuse", "skip"] = "refuse",
    batch_size: int = 64,
    device: str = "auto",
    trust_code: bool = False,
) -> tuple[list[Prediction], list[str], list[str]]:
    """The `top` most probable classes of each image; what was skipped, and why; what is worth saying of the network.

    Images are cut and resized as in the run's evaluation. Folders are searched for images at any depth, as in training.

    Raises:
        UserError: no network there, no such file, no images, images that cannot be decoded, an impossible `top`.
    """
    need_bool("trust_code", trust_code)
    if not all(images):
        raise UserError("A path among the images is empty. Give image files, or folders of them.")
    searched = [_found(Path(place)) for place in images]
    files = Files([file for found, _ in searched for file in found])
    network = load_network(Brought(run), Facts((), 3, None), trust_code).eval()
    if not 1 <= top <= len(network.class_names):
        raise UserError(f"top is a number of classes, from 1 to {len(network.class_names)}; got {top}.")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1; got {batch_size}.")
    everything = torch.arange(len(files.paths))
    pictures = Pictures(files, everything, torch.zeros_like(everything), network.channels)
    refused = unreadable(pictures)
    if skip == "refuse":
        refuse_unreadable(refused, len(pictures), "--unreadable skip")
    pictures = without(pictures, refused)
    side = network.size or PHOTOGRAPH
    said = [*network.notes, *warn_of_probabilities(network, run, (network.channels, side, side))]
    where = torch.device(pick_device(device))
    found: list[Prediction] = []
    for positions in torch.split(torch.arange(len(pictures)), batch_size) if len(pictures) else ():
        pixels = torch.stack([_pixels(pictures, i, network) for i in positions.tolist()])
        found += _labelled(network.to(where), pixels.to(where), [_path(pictures, i) for i in positions.tolist()], top)
    return found, [*(note for _, notes in searched for note in notes), *refused.values()], said


def _found(place: Path) -> tuple[list[str], tuple[str, ...]]:
    """The image files that a place stands for, and what was left out of a folder."""
    if place.is_dir():
        listing = Listing(place)
        files = listing.images(place)
        if not files:
            raise UserError(
                f"There are no images in {place}; looked for files ending in {', '.join(IMAGE_EXTENSIONS)}. "
                + " ".join(listing.notes())
            )
        return files, listing.notes()
    if place.is_file():
        return [str(place)], ()
    if place.exists():
        raise UserError(f"{place} is no regular file (a pipe, a device). Give image files, or folders of them.")
    raise UserError(f"There is no file or folder {place}. Give image files, or folders of them.")


def _pixels(pictures: Pictures, position: int, network: Network) -> torch.Tensor:
    """As in evaluation: images of one small size as they are, photographs reduced and their middle cut out."""
    image, size = pictures.open(position), network.size or PHOTOGRAPH
    if image.size != (size, size) or network.crop_pct < 1:
        image = reduced(image, round(size / network.crop_pct))
    corner = (image.width - size) // 2
    return to_pixels(image, network.channels)[:, corner : corner + size, corner : corner + size]


def _path(pictures: Pictures, position: int) -> str:
    return pictures.reader.name(int(pictures.place[position]))


@torch.no_grad()
def _labelled(network: Network, pixels: torch.Tensor, paths: list[str], top: int) -> list[Prediction]:
    best = network(pixels.float() / 255).float().softmax(1).topk(top)
    return [
        Prediction(path, rank, network.class_names[label], round(probability, 6))
        for path, labels, values in zip(paths, best.indices.tolist(), best.values.tolist(), strict=True)
        for rank, (label, probability) in enumerate(zip(labels, values, strict=True), 1)
    ]
