"""What the frozen teacher makes of views that never change: computed once, instead of every time."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sskd.data.batches import Resident
from sskd.methods.plan import Outputs
from sskd.seeds import generator_at
from sskd.train.step import Step
from sskd.views.pretext import Batch

if TYPE_CHECKING:
    from sskd.train.loop import StageRun

ROOM = 1 << 30  # bytes: a head takes 100 MiB for four views of CIFAR; stages that read feature maps may need more


def remembered(run: "StageRun", step: Step) -> Outputs | None:
    """At the taps that the stage's terms read, [images, V, ...], by the images' numbers.

    None where the student takes part, where flips, crops or views are drawn anew in each epoch, where one epoch is all
    there is, where several processes share the images, or where it would take more than `ROOM` bytes.
    """
    feed, trainer = run.feed, run.trainer
    alone = step.student is None and step.teacher is not None and trainer.world.size == 1
    if not (alone and run.stage.epochs > 1 and isinstance(feed, Resident) and feed.unchanging):
        return None
    found: dict[str, list[Tensor]] = {}
    for cut in feed.whole(trainer.schedule.batch_size):
        generator = generator_at("remembered")
        before = generator.get_state()
        batch = run.viewed(cut, generator, 0)
        if not torch.equal(generator.get_state(), before):  # the views are drawn
            return None
        values = step.teacher_read(batch)
        if sum(v.nbytes for v in values.values()) / len(cut.labels) * len(feed.labels) > ROOM:
            return None
        for tap, value in values.items():
            found.setdefault(tap, []).append(value)
    whole = {tap: torch.cat(values) for tap, values in found.items()}
    size = sum(value.nbytes for value in whole.values()) / 2**20
    trainer.listener.note(
        f"{run.stage.name}: views never change here, so the teacher has seen all {len(feed.labels)} images once "
        f"({size:.0f} MiB are kept)."
    )
    return whole


class Looked:
    """What a stage without a student is evaluated on, which is the same every time: batches without their images, and
    the teacher's values of them. Kept where the stage is evaluated again and all splits together take at most `ROOM`
    bytes; each of several processes keeps its own batches.
    """

    def __init__(self, run: "StageRun", step: Step) -> None:
        epochs, every = run.stage.epochs, run.trainer.schedule.evaluate_every
        self.step, self._left = step, ROOM
        self._keeps = step.student is None and step.teacher is not None and -(-epochs // every) > 1
        self._kept: dict[str, list[tuple[Batch, Outputs]]] = {}

    def at(self, split: str, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Outputs | None]]:
        """Batches, and the teacher's values where they are known; `batches` are not asked for where all is kept."""
        if split in self._kept:
            yield from self._kept[split]
            return
        found = list[tuple[Batch, Outputs]]()
        for batch in batches:
            values = self.step.teacher_read(batch) if self._keeps else None
            if values is not None:
                self._left -= sum(value.nbytes for value in values.values())
                found.append((batch._replace(images=batch.images[:0].clone()), values))
            if self._left < 0:
                self._keeps = False
                found.clear()
            yield batch, values
        if self._keeps:
            self._kept[split] = found
