"""A part of a data set's classes, as if there were no others."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from sskd.data.source import ImageSet, Source
from sskd.data.streams import Stream
from sskd.errors import UserError, unknown


def only(source: Source, names: Sequence[str]) -> Source:
    """The images of these classes alone, numbered in this order.

    Raises:
        UserError: a class that is not there or named twice, fewer than two, a stream.
    """
    for name in names:
        if name not in source.class_names:
            raise unknown(f"class of {source.name}", name, source.class_names)
    if len(set(names)) < len(names):
        raise UserError(f"reading.classes names a class twice: {', '.join(n for n in names if names.count(n) > 1)}.")
    number = torch.full((len(source.class_names),), -1)
    number[[source.class_names.index(name) for name in names]] = torch.arange(len(names))

    def kept(images: ImageSet) -> ImageSet:
        if isinstance(images, Stream):
            raise UserError(
                f"{source.name} is read as a stream, of which classes cannot be chosen. Leave --reading.stream or "
                "--reading.classes out."
            )
        part = images.take((number[images.labels] >= 0).nonzero().flatten())
        return replace(part, labels=number[part.labels])

    own = source.validation
    note = f"Of the {len(source.class_names)} classes of {source.name} {len(names)} are used."
    return replace(
        source,
        class_names=tuple(names),
        train=kept(source.train),
        test=kept(source.test),
        validation=None if own is None else kept(own),
        notes=(*source.notes, note),
    )
