"""What a teacher tells about views: how wrong it is (error levels), what selective transfer keeps, what it mistakes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sskd.analyses.answers import outputs, viewed
from sskd.analyses.finished import Finished, Looked
from sskd.methods.logits import error_level, select
from sskd.methods.sskd import Transformed
from sskd.views.contrastive import Contrastive
from sskd.views.pretext import Batch


class Levels:
    """Error levels of many rows, and which of them selective transfer keeps."""

    def __init__(self, ratio: float | None) -> None:
        self.ratio = ratio
        self._levels, self._kept, self._answers = list[Tensor](), list[Tensor](), 0

    def update(self, logits: Float[Tensor, "M K"], answer: Int64[Tensor, "M"]) -> tuple[Tensor, Bool[Tensor, "M"]]:
        """Add a batch's rows. Their levels, and whether they are kept: selection is made within a batch."""
        level = error_level(logits.float(), answer)
        kept = select(level, 1.0 if self.ratio is None else self.ratio)
        self._levels.append(level.cpu())
        self._kept.append(kept.cpu())
        self._answers = logits.shape[1]
        return level, kept

    @property
    def rows(self) -> int:
        """How many have been added."""
        return sum(map(len, self._levels))

    def histogram(self) -> dict[str, Any] | None:
        """Counts of levels from each edge to below the next: 0, 1, 2, 3-4, 5-8 ... up to the number of answers."""
        if not self.rows:
            return None
        edges = [0, 1, *(2**i + 1 for i in range(self._answers.bit_length()) if 2**i + 1 < self._answers)]
        levels, borders = torch.cat(self._levels), torch.tensor(edges)
        counts = torch.bincount(torch.bucketize(levels, borders, right=True) - 1, minlength=len(edges))
        return {"edges": [*edges, self._answers], "counts": counts.tolist(), "answers": self._answers}

    def selection(self) -> dict[str, Any] | None:
        """Rows, the share of wrong ones among them, the share that is transferred; None where nothing is."""
        if not self.rows or self.ratio is None:
            return None
        levels, kept = torch.cat(self._levels), torch.cat(self._kept)
        return {
            "ratio": self.ratio,
            "rows": self.rows,
            "wrong": float((levels > 0).double().mean()),
            "kept": float(kept.double().mean()),
        }


class Mistake(NamedTuple):
    """A transformed view that the head takes for another image of the batch than its own."""

    rank: int
    similarity: float  # with the image it is taken for
    own_similarity: float
    image: int  # position among the images that are looked at
    view: int
    taken_for: int
    kept: bool
    seen: Tensor  # the view's pixels

    @property
    def pair(self) -> frozenset[int]:
        """The two images, whichever is taken for the other."""
        return frozenset((self.image, self.taken_for))


@dataclass
class Transferred:
    """What the teacher and its head say of the views of some images."""

    ss: Levels
    tf: Levels
    plain: Levels
    mistakes: list[Mistake]
    notes: tuple[str, ...] = ()

    def error_levels(self) -> dict[str, Any]:
        """Histograms, if any: of the head's answers, of the teacher's on transformed views and on plain ones."""
        found = {name: getattr(self, name).histogram() for name in ("ss", "tf", "plain")}
        return {name: levels for name, levels in found.items() if levels is not None}

    def kept(self) -> dict[str, Any]:
        """What selective transfer keeps of these images, where it applies."""
        found = {name: getattr(self, name).selection() for name in ("ss", "tf")}
        return {name: kept for name, kept in found.items() if kept is not None}


def look(finished: Finished, looked_at: Looked, most: int) -> Transferred:
    """Ask the teacher and its head about the views of the images, in batches as in the run's training.

    `most`: so many of the mistakes that are most nearly right are returned, and so many of the most wrong, each of two
    other images.
    """
    terms = [term for _, term in finished.plan.stages[-1].loss.values()]
    ratio_tf = next((term.ratio for term in terms if isinstance(term, Transformed)), None)
    heads = finished.heads
    found = Transferred(Levels(heads.ratio if heads else None), Levels(ratio_tf), Levels(None), [])
    if finished.parts.teacher is None:
        return found
    size = min(finished.job.training.batch_size, len(looked_at.images))
    asks = heads is not None and (looked_at.index is not None or not heads.pretext.needs_index)
    if heads and not asks:
        found.notes = (f"{heads.pretext.name} asks about training images alone: --split train shows its answers.",)
    nearest, farthest = list[Mistake](), list[Mistake]()
    for i, batch in enumerate(viewed(finished, looked_at, size)):
        labels = batch.labels
        values = outputs(finished.teacher, batch, *(("pooled",) if heads else ()))
        found.plain.update(values["logits"][:, 0], labels)
        if batch.images.shape[1] > 1:
            views = batch.images.shape[1] - 1
            found.tf.update(values["logits"][:, 1:].flatten(0, 1), labels.repeat_interleave(views))
        if heads and asks and len(labels) == size:  # a smaller batch may ask an easier question
            logits = heads.term.answers(heads.teacher, values, batch)
            level, kept = found.ss.update(logits, heads.term.target(batch))
            if isinstance(heads.pretext, Contrastive):
                mistakes = _mistakes(batch, logits, level, kept, i * size)
                nearest = _first_of_pairs([*nearest, *mistakes], lambda one: (one.rank, -one.similarity))[:most]
                farthest = _first_of_pairs([*farthest, *mistakes], lambda one: (-one.rank, -one.similarity))[:most]
    shown = {one.pair for one in nearest}
    found.mistakes = [*nearest, *(one for one in farthest if one.pair not in shown)]
    return found


def _first_of_pairs(mistakes: list[Mistake], order: Callable[[Mistake], tuple[int, float]]) -> list[Mistake]:
    """In order, and of each two images the first alone: views of twins would fill the gallery."""
    found: dict[frozenset[int], Mistake] = {}
    for one in sorted(mistakes, key=order):
        found.setdefault(one.pair, one)
    return [*found.values()]


def _mistakes(
    batch: Batch, logits: Float[Tensor, "M B"], level: Int64[Tensor, "M"], kept: Bool[Tensor, "M"], first: int
) -> list[Mistake]:
    """The rows of one batch that are wrong. `first`: the position of the batch's first image."""
    views = batch.images.shape[1] - 1
    highest = logits.max(1)
    found = list[Mistake]()
    for row in (level > 0).nonzero().flatten().tolist():
        image, view = row // views, row % views + 1
        pixels = (batch.images[image, view] * 255).round().clamp(0, 255).to(torch.uint8).cpu()
        found.append(
            Mistake(
                int(level[row]),
                round(float(highest.values[row]), 4),
                round(float(logits[row, image]), 4),
                first + image,
                view,
                first + int(highest.indices[row]),
                bool(kept[row]),
                pixels,
            )
        )
    return found
