"""What the frozen teacher makes of views that never change: computed once, instead of at every step."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sskd.data.batches import Resident
from sskd.methods.plan import Outputs
from sskd.seeds import generator_at
from sskd.train.step import Step

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
