"""What a run trains on, chooses its epoch on and is measured on, cut out of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from sskd.data.images import Images
from sskd.data.noise import NoiseKind, noisy_labels
from sskd.data.pictures import Pictures, refuse_unreadable, unreadable
from sskd.data.source import ImageSet, Source
from sskd.data.streams import Stream
from sskd.data.subsets import describe_classes, label_count, label_fraction, validation_split
from sskd.errors import UserError

VALIDATION = 0.1  # share of the training images, where nothing is said and every class can spare some


@dataclass(frozen=True)
class Splits:
    """The images of a run, after the cuts."""

    full: ImageSet  # all training images but the validation split, with their labels after noise
    share: Int64[Tensor, "K"] | None  # the positions of what the student sees; None for all
    evaluation: dict[str, ImageSet]  # "validation" if there is one, "test"
    notes: tuple[str, ...] = ()
    clean: Int64[Tensor, "N"] | None = None  # labels of `full` before noise; None where there is none
    places: Int64[Tensor, "N"] | None = None  # where `full` lies in the data's training split; None for a stream

    @property
    def train(self) -> ImageSet:
        """What the student sees."""
        if self.share is None or isinstance(self.full, Stream):
            return self.full
        return self.full.take(self.share)

    def seen(self, images: Literal["full", "subset"], labels: Literal["clean", "noisy"]) -> ImageSet:
        """All training images or the student's share, with the labels from before or after the noise."""
        chosen = self.train if images == "subset" else self.full
        if self.clean is None or labels == "noisy" or isinstance(chosen, Stream):
            return chosen
        return replace(chosen, labels=self.clean if images == "full" or self.share is None else self.clean[self.share])

    @property
    def record(self) -> dict[str, Tensor]:
        """What a run keeps of a share or of noise: positions in the data's training split, labels before and after.

        `train`: what the student sees. `changed`: images with a wrong label, of all that could be trained on; `clean`
        and `noisy`: their labels. Empty where the student sees all images with the labels that they have.
        """
        if self.places is None or (self.share is None and self.clean is None):
            return {}
        record = {"train": self.places if self.share is None else self.places[self.share]}
        if self.clean is not None:
            changed = self.full.labels != self.clean
            record |= {"changed": self.places[changed], "clean": self.clean[changed]}
            record |= {"noisy": self.full.labels[changed]}
        return record

    @property
    def wrong(self) -> int:
        """Images of the student's with a wrong label."""
        if self.clean is None:
            return 0
        wrong = self.full.labels != self.clean
        return int((wrong if self.share is None else wrong[self.share]).sum())

    def encoded(self) -> bool:
        """Whether any of the images are still to be decoded."""
        return any(not isinstance(images, Images) for images in (self.full, *self.evaluation.values()))

    def refuse_unreadable(self) -> None:
        """Decode every image once, in trial; see `unreadable`. The parts of one split together, however it was cut.

        Raises:
            UserError: names and counts those that cannot be decoded.
        """
        parts = [images for images in (self.full, *self.evaluation.values()) if isinstance(images, Pictures)]
        for reader in {id(images.reader): images.reader for images in parts}.values():
            cut = [images for images in parts if images.reader is reader]
            place, labels = (
                torch.cat(values) for values in zip(*((one.place, one.labels) for one in cut), strict=True)
            )
            order = place.argsort()
            whole = replace(cut[0], place=place[order], labels=labels[order])
            refuse_unreadable(unreadable(whole), len(whole))

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


def cut(
    source: Source,
    validation: float | None,
    fraction: float,
    seed: int,
    per_class: int | None = None,
    noise: float = 0.0,
    noise_kind: NoiseKind = "symmetric",
) -> Splits:
    """Cut the validation images off, take the student's share of the rest, and make labels wrong.

    All is stratified and seeded. The share is chosen by the right labels, so it is the same at every noise; noise
    is drawn for all images that are left, so it is the same for every share, and for a teacher that sees all. The
    validation and test images keep their labels: they are there to measure, not to learn from.

    `validation` is a share or number of the training images. None takes the data set's own validation split if it has
    one, else a tenth, or nothing where a class has too few images for that.

    Raises:
        UserError: a split or share that would leave a class without an image; values that make no sense.
    """
    if isinstance(source.train, Stream):
        return _of_stream(source, source.train, validation, fraction, per_class, noise)
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
    share = _share(full.labels, fraction, per_class, seed, names)
    if share is not None and validation is None and "validation" in evaluation:
        spent = len(evaluation["validation"])
        told = f"{len(share):,} training labels, {spent:,} validation labels: --validation 0 spends none of these"
        notes = (*notes, f"{told}, and the last epoch counts.")
    labels = noisy_labels(full.labels, noise, noise_kind, seed, names)
    if noise:
        _refuse_unlabelled(labels if share is None else labels[share], names)
    splits = Splits(replace(full, labels=labels), share, evaluation, notes, full.labels if noise else None, train)
    if noise:
        said = f"{splits.wrong:,} of {len(splits.train):,} training images have a wrong label ({noise_kind} noise)"
        splits = replace(splits, notes=(*notes, f"{said}; those of validation and test are right."))
    return splits


def _share(
    labels: Int64[Tensor, "N"], fraction: float, per_class: int | None, seed: int, names: Sequence[str]
) -> Int64[Tensor, "K"] | None:
    if per_class is None:
        return label_fraction(labels, fraction, seed, names) if fraction != 1 else None
    if fraction != 1:
        raise UserError(f"--fraction {fraction} and --per_class {per_class} both say how many images: give one.")
    return label_count(labels, per_class, seed, names)


def _refuse_unlabelled(labels: Int64[Tensor, "K"], names: Sequence[str]) -> None:
    counts = torch.bincount(labels, minlength=len(names))
    if (missing := counts == 0).any():
        raise UserError(
            "After the noise no training image is labelled as one of these classes: "
            f"{describe_classes(counts, names, missing)}. Take more images, or less noise."
        )


def _of_stream(
    source: Source, train: Stream, validation: float | None, fraction: float, per_class: int | None, noise: float
) -> Splits:
    """Nothing can be cut off a stream: its images are not known before they come."""
    asked = {"validation": validation or None, "fraction": None if fraction == 1 else fraction}
    asked |= {"per_class": per_class, "noise": noise or None}
    if option := next((f"--{name} {value}" for name, value in asked.items() if value is not None), None):
        raise UserError(
            f"{option} needs images that can be asked for by number; {source.name} is read as a stream. "
            "Leave --reading.stream out, or let the whole stream train and choose the last epoch."
        )
    own = source.validation if validation is None else None
    evaluation = {**({"validation": own} if own is not None else {}), "test": source.test}
    notes = () if own is not None else ("No validation split can be cut off a stream. The last epoch counts.",)
    return Splits(train, None, evaluation, notes)
