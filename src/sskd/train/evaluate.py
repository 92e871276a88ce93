"""What a stage is measured on, between its epochs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from torch import Tensor, nn

from sskd.data.feed import Feed
from sskd.memory import all_sent
from sskd.methods.plan import Outputs
from sskd.seeds import generator_at
from sskd.train.meters import Meter
from sskd.train.protocols import Record
from sskd.train.remembered import Looked
from sskd.train.step import Step
from sskd.views.pretext import Batch

if TYPE_CHECKING:
    from sskd.train.loop import StageRun, Trainer

FRESH = 2048  # training images, about, on fresh views of which a head is measured that answers with their numbers


def evaluated(run: "StageRun", step: Step, looked: Looked) -> Record:
    """The means over each evaluation split; of terms that know training images by number, over fresh views of those."""
    splits = run.trainer.data.evaluation
    found: Record = {name: _means(run, step.measure, looked.at(name, _whole(run, name))) for name in splits}
    if step.counting:
        found["fresh"] = _means(run, step.measure_counting, looked.at("fresh", _fresh(run, step)))
    return found


def images_at_once(trainer: "Trainer", feed: Feed) -> int:
    """Images of a batch of evaluation. Without a question nothing depends on the batch, and large ones are faster."""
    size = trainer.schedule.batch_size
    return size if trainer.plan.views.views > 1 else max(size, feed.comfortable)


def _whole(run: "StageRun", split: str) -> Iterator[Batch]:
    """All images of a split, in batches as in training: the pretext's question depends on their size."""
    trainer, share = run.trainer, run.trainer.world.share
    feed = trainer.data.evaluation[split]
    for i, cut in enumerate(feed.whole(images_at_once(trainer, feed))):  # each of several processes gets whole batches
        yield run.viewed(cut, generator_at("evaluate", i * share.size + share.rank), run.stage.epochs)


def _fresh(run: "StageRun", step: Step) -> Iterator[Batch]:
    """Training images in views that are the same at each evaluation, and that no training saw."""
    trainer, views = run.trainer, run.trainer.plan.views
    size, crops = trainer.schedule.batch_size, views.views if views.own_crop else 1
    count = -(-min(FRESH, run.feed.steps(size) * size) // size)
    for cut, generator in islice(run.feed.epoch(size, crops, ("fresh",)), count):
        batch = run.viewed(cut, generator, run.stage.epochs, trainer.world.share)
        drawn = {name: term.draw(generator, cut.index) for name, term in step.counting.items()}
        yield batch._replace(draws=all_sent(drawn, run.device))


def _means(
    run: "StageRun",
    measure: Callable[[Batch, Outputs | None], dict[str, Tensor]],
    batches: Iterable[tuple[Batch, Outputs | None]],
) -> dict[str, float]:
    meter = Meter()
    with _evaluating(run.modules):
        for batch, teacher in batches:
            meter.update(measure(batch, teacher), 0, len(batch.labels))
    meter = run.trainer.world.collected(meter, run.device)
    meter.check(run.stage.name)
    means = meter.read()
    means.pop("logits", None)
    return means


@contextmanager
def _evaluating(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """In eval mode, and afterwards each part as it was."""
    modes = {part: part.training for module in modules.values() for part in module.modules()}
    for module in modules.values():
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
