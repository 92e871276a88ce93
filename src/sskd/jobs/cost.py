"""What a training would take on the machine at hand, from short samples of its decoding and of its steps."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from sskd.data.crops import Resized
from sskd.data.decoded import default_workers
from sskd.data.feed import Cut
from sskd.data.images import Images
from sskd.data.prepare import make_feed
from sskd.data.source import ImageSet
from sskd.data.streams import Stream
from sskd.jobs.assemble import Prepared, when_decoded
from sskd.jobs.job import Job
from sskd.jobs.room import ran_out
from sskd.train.trial import Timed

SAMPLE = 2.0  # seconds that each kind of decoding is looked at
BATCH, WARM = 16, 4  # images, and batches that are not counted: workers have decoded ahead
PATIENCE = 4.0  # seconds that a sampled step may take; a longer one is sampled with fewer images
FEW = 4  # images of the first sample


@dataclass(frozen=True)
class Decoding:
    """Images/s that are decoded and cut here, without anything else to do."""

    when: Literal["once", "workers", "stream"]
    training: float  # with all crops of an image
    evaluation: float
    crops: int
    size: int
    workers: int
    sample: int  # images that `training` was measured with


@dataclass(frozen=True)
class Stepping:
    """Seconds of a whole batch, of one image in evaluation, and how many images were sampled for them."""

    seconds: float
    evaluation: float
    sample: int
    refused: str = ""  # why it was not captured, where that was asked for


@dataclass(frozen=True)
class Hours:
    """A stage, in hours, and what bounds it."""

    epoch: float
    evaluation: float | None  # after an epoch; None where nobody says how many images it has
    whole: float  # without evaluation where that is None
    bound: Literal["step", "decoding"]


def decoding(job: Job, parts: Prepared, crops: int, device: str) -> Decoding | None:
    """Decode for some seconds as a run would; None for images that are in memory anyway.

    Raises:
        UserError: an image that cannot be decoded.
    """
    train, cut = parts.splits.train, parts.crops
    if isinstance(train, Images) or not isinstance(cut, Resized):
        return None
    workers = default_workers() if job.training.workers is None else job.training.workers
    when = when_decoded(parts.splits, cut, job.training.decode)
    kind: Literal["once", "workers", "stream"] = "once" if when == "once" else "workers"

    def feed(images: ImageSet) -> tuple[float, int]:
        made = make_feed(images, cut, torch.device(device), workers)
        size = max(1, min(BATCH, len(images) // (2 * WARM)))  # of few images too there are batches to count
        if images is train:
            return _rate(batch for batch, _ in made.epoch(size, crops, ("sample",)))
        return _rate(made.whole(BATCH if isinstance(images, Stream) else size))

    test = parts.splits.evaluation["test"]
    slow, sample = feed(train)
    fast = slow if isinstance(test, Images) else feed(test)[0]
    return Decoding("stream" if isinstance(train, Stream) else kind, slow, fast, crops, cut.size, workers, sample)


def _rate(batches: Iterable[Cut]) -> tuple[float, int]:
    """Images/s that come, and how many were counted: once they flow or, where fewer come, from the start."""
    began = time.perf_counter()
    images, counted, since = 0, 0, began
    for i, batch in enumerate(batches):
        now = time.perf_counter()
        images += len(batch.labels)
        if i < WARM:
            counted, since = images, now
        elif now - since > SAMPLE:
            break
    now = time.perf_counter()
    flowed = images - counted
    return (flowed / (now - since), flowed) if flowed else (images / (now - began), images)


def stepping(time_step: Callable[[int, bool], Timed], batch_size: int) -> Stepping:
    """`time_step(images, evaluating)` of a whole batch; of fewer images where that takes too long or does not fit."""
    few = min(FEW, batch_size)
    found = time_step(few, False)
    size = min(batch_size, max(few, int(few * PATIENCE / found.seconds)))
    while size > few:
        try:
            found = time_step(size, False)
            break
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            size = max(few, size // 2)
    evaluation = time_step(size, True).seconds / size
    return Stepping(found.seconds * batch_size / size, evaluation, size, found.refused)


def hours(
    step: Stepping,
    decoded: Decoding | None,
    images: int,
    batch_size: int,
    evaluated: int | None,
    epochs: int,
    evaluate_every: int,
    device: str,
) -> Hours:
    """A stage of so many `images` in an epoch, with `evaluated` images (None: nobody says) after every so many epochs.

    A GPU computes while the cores decode, and the slower of the two decides; on the CPU both want the same cores, and
    their times add up.
    """

    def both(one: float, other: float) -> float:
        return max(one, other) if device.startswith("cuda") else one + other

    every = decoded is not None and decoded.when != "once"
    loading, looking = (images / decoded.training, 1 / decoded.evaluation) if decoded and every else (0.0, 0.0)
    stepping = images // batch_size * step.seconds
    bound: Literal["step", "decoding"] = "step" if stepping >= loading else "decoding"
    epoch = both(stepping, loading) / 3600
    if evaluated is None:
        return Hours(epoch, None, epochs * epoch, bound)
    evaluation = evaluated * both(step.evaluation, looking) / 3600
    return Hours(epoch, evaluation, epochs * epoch + math.ceil(epochs / evaluate_every) * evaluation, bound)
