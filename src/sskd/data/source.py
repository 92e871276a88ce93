"""What a data set is to the rest of the project, whatever family it comes from."""

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from sskd.data.images import Images
from sskd.data.pictures import Pictures
from sskd.data.streams import Stream
from sskd.errors import UserError
from sskd.escaping import is_utf8, visible

Indexed = Images | Pictures
"""Images that can be asked for by number."""
ImageSet = Images | Pictures | Stream
"""Labelled images: decoded and of one size; encoded and of any; or such as come one after the other, unnumbered."""


@dataclass(frozen=True)
class Source:
    """A data set as a family delivers it: its own splits, nothing cut from them yet.

    `mean` and `std` are per channel, for pixels in [0, 1]. `notes` say what was guessed or left out.
    """

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    validation: ImageSet | None = None  # where the data set has one of its own
    notes: tuple[str, ...] = ()
    published: bool = False  # mean and std are those that networks for this data are published with

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise UserError(
                f"{self.name} has {len(self.class_names)} class ({', '.join(self.class_names)}); a classifier needs "
                "at least 2. Check the label column."
            )
        for name in self.class_names:
            if not is_utf8(name):
                raise UserError(
                    f"The class {visible(name)} of {self.name} has a name that is no UTF-8. Rename it: the names of "
                    "classes are written into files."
                )
        for split, images in (("train", self.train), ("test", self.test)):
            if not len(images):
                raise UserError(f"The {split} split of {self.name} holds no images.")


@dataclass(frozen=True)
class DataInfo:
    """What networks, methods and reports may know of the images that a run trains on."""

    name: str
    size: int
    class_names: tuple[str, ...]
    labels: Int64[Tensor, "N"]  # as trained on
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_shape: tuple[int, int, int]  # channels, height, width
    teacher_size: int = 0  # images that stages shared by students train on; 0: these
    numbers: Int64[Tensor, "N"] | None = None  # positions of these among those; None: the same images

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def info(
    source: Source,
    train: ImageSet,
    image_shape: tuple[int, int, int],
    teacher_size: int = 0,
    numbers: Int64[Tensor, "N"] | None = None,
) -> DataInfo:
    """The facts about `train`, a part of `source`, whose images the networks see in this shape."""
    return DataInfo(
        source.name,
        len(train),
        source.class_names,
        train.labels,
        source.mean,
        source.std,
        image_shape,
        teacher_size,
        numbers,
    )
