"""What a run trains on, chooses its epoch on and is measured on, cut out of a data set."""

from dataclasses import dataclass, replace

from jaxtyping import Int64
from torch import Tensor

from sskd.data.images import Images
from sskd.data.pictures import Pictures, refuse_unreadable, unreadable
from sskd.data.source import ImageSet, Source
from sskd.data.streams import Stream
from sskd.data.subsets import label_fraction, validation_split
from sskd.errors import UserError

VALIDATION = 0.1  # share of the training images, where nothing is said and every class can spare some


@dataclass(frozen=True)
class Splits:
    """The images of a run, after the cuts."""

    full: ImageSet  # all training images but the validation split
    share: Int64[Tensor, "K"] | None  # the positions of what the student sees; None for all
    evaluation: dict[str, ImageSet]  # "validation" if there is one, "test"
    notes: tuple[str, ...] = ()

    @property
    def train(self) -> ImageSet:
        """What the student sees."""
        if self.share is None or isinstance(self.full, Stream):
            return self.full
        return self.full.take(self.share)

    def encoded(self) -> bool:
        """Whether any of the images are still to be decoded."""
        return any(not isinstance(images, Images) for images in (self.full, *self.evaluation.values()))

    def refuse_unreadable(self) -> None:
        """Decode every image once, in trial.

        Raises:
            UserError: names and counts those that cannot be decoded.
        """
        for images in (self.full, *self.evaluation.values()):
            if isinstance(images, Pictures):
                refuse_unreadable(unreadable(images), len(images))

    def stored(self, side: int) -> "Splits":
        """With all images in memory, as squares of `side` pixels; images that are there and smaller stay as they are.

        Raises:
            UserError: names and counts those that cannot be decoded.
        """

        def store(images: ImageSet) -> ImageSet:
            if isinstance(images, Stream):
                return images
            return images.stored(side) if isinstance(images, Pictures) else images.reduced(side)

        evaluation = {name: store(images) for name, images in self.evaluation.items()}
        return replace(self, full=store(self.full), evaluation=evaluation)


def cut(source: Source, validation: float | None, fraction: float, seed: int) -> Splits:
    """Cut the validation images off, then take the student's share of the rest. Both are stratified and seeded.

    `validation` is a share or number of the training images. None takes the data set's own validation split if it has
    one, else a tenth, or nothing where a class has too few images for that.

    Raises:
        UserError: a split or share that would leave a class without an image.
    """
    if isinstance(source.train, Stream):
        return _of_stream(source, source.train, validation, fraction)
    names, notes, own = source.class_names, tuple[str, ...](), source.validation
    if validation is None and own is None:
        try:
            train, held_out = validation_split(source.train.labels, VALIDATION, seed, names)
        except UserError:
            train, held_out = validation_split(source.train.labels, 0, seed, names)
            notes = ("No validation split: some class has too few images to spare any. The last epoch counts.",)
    else:
        train, held_out = validation_split(source.train.labels, validation or 0, seed, names)
    full = source.train.take(train) if len(held_out) else source.train
    evaluation = {"test": source.test}
    if len(held_out):
        evaluation = {"validation": source.train.take(held_out), **evaluation}
    elif validation is None and own is not None:
        evaluation = {"validation": own, **evaluation}
    share = label_fraction(full.labels, fraction, seed, names) if fraction != 1 else None
    return Splits(full, share, evaluation, notes)


def _of_stream(source: Source, train: Stream, validation: float | None, fraction: float) -> Splits:
    """Nothing can be cut off a stream: its images are not known before they come."""
    if validation or fraction != 1:
        option = f"--validation {validation}" if validation else f"--fraction {fraction}"
        raise UserError(
            f"{option} needs images that can be asked for by number; {source.name} is read as a stream. "
            "Leave --reading.stream out, or let the whole stream train and choose the last epoch."
        )
    own = source.validation if validation is None else None
    evaluation = {**({"validation": own} if own is not None else {}), "test": source.test}
    notes = () if own is not None else ("No validation split can be cut off a stream. The last epoch counts.",)
    return Splits(train, None, evaluation, notes)
