"""How a data set is to be read, where the guess is not what the user means."""

from dataclasses import dataclass
from typing import Literal

from sskd.errors import UserError

MAX_PIXELS = 250_000_000  # more than any camera's; 750 MB as RGB


@dataclass(frozen=True)
class Reading:
    """How a data set is read. What is not given is guessed from the files, and said.

    Args:
        image: the column (or, in tar shards, the extension) of the images.
        label: the column (or extension) of the labels.
        train: the name of the training split; of a folder also . for the folder itself, whose folders then are classes.
        test: the name of the test split.
        test_share: share of the images, stratified, that becomes the test split where the data set has none.
        square: images of one size that are not square are refused, or cropped to their centre: rotated views need
            squares. Photographs of mixed sizes are cut square in any case.
        stream: read a data set of the hub as it comes, without keeping it; its images then have no index.
        epoch_images: images of a stream that make an epoch, where it does not say how many it has.
        classes: these classes alone, by name and in this order; all where none are given.
        unreadable: images that cannot be decoded stop the run, named and counted, or are skipped.
        max_pixels: images with more pixels than this are refused before they are decoded, as unreadable ones.
        max_expansion: how many times larger than on disk a parquet file may become in memory; up to 256 MiB are never
            refused.
    """

    image: str | None = None
    label: str | None = None
    train: str | None = None
    test: str | None = None
    test_share: float = 0.2
    square: Literal["refuse", "crop"] = "refuse"
    unreadable: Literal["refuse", "skip"] = "refuse"
    stream: bool = False
    epoch_images: int | None = None
    classes: tuple[str, ...] | None = None
    max_pixels: int = MAX_PIXELS
    max_expansion: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise UserError(f"reading.test_share is a share between 0 and 1; got {self.test_share}.")
        for name in ("max_pixels", "max_expansion", "epoch_images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"reading.{name} must be at least 1; got {value}.")
        for name in ("image", "label", "train", "test"):
            if getattr(self, name) == "":
                raise UserError(f"reading.{name} is empty. Name something, or leave it out.")
        if self.epoch_images is not None and not self.stream:
            raise UserError(
                "reading.epoch_images says how long an epoch of a stream is. Say --reading.stream true, too."
            )
