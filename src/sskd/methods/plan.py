"""What a method is: stages of named, weighted terms. Data only; the loop that runs it lives in `sskd.train`."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.data.source import DataInfo
from sskd.errors import UserError
from sskd.models.taps import Shapes
from sskd.optim import Optim as Optim
from sskd.views.pretext import Batch, Views

Outputs = Mapping[str, Tensor]
"""Values at taps, each [B, V, ...]. Terms that know no views read view 0."""


Side = Literal["student", "teacher"]


def _no_tail(side: Side, tap: str, outputs: int) -> nn.Module:
    raise UserError(f"What follows {tap} of this {side} is not known, so it cannot be copied.")


@dataclass(frozen=True)
class Pair:
    """All that a method may know when it is built. `teacher` is None where a run has none.

    `left_out` says for each side which taps were found but cannot be read, and why; `linear`, which `stageK.pre` are
    the stage itself, because it ends without an activation. `tail(side, tap, outputs)` is a freshly initialised copy
    of what follows a tap, down to a linear layer of so many outputs; after the last stage, of that stage at stride 1.
    `branch_taps`: where auxiliary classifiers branch off a side, in order; a side that is not there does at each stage.
    `after_stages`: the modules of a side that come after its last stage.
    """

    student: Shapes
    teacher: Shapes | None
    data: DataInfo
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tail: Callable[[Side, str, int], nn.Module] = _no_tail
    linear: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    branch_taps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    after_stages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Term(nn.Module):
    """One unweighted loss. It owns what only it uses (adapters, banks), and names the taps that it reads.

    `forward` never writes a buffer: what a term is to remember it returns from `remembering` and stores in `update`,
    which runs after the backward pass and outside the compiled step. It writes into its buffers in place; on a GPU all
    of it may be recorded as a graph, in which no number kept in Python and no draw on the host would ever change again
    (a step that does such a thing is run operation by operation).

    A term that `relates` images (its value is no mean over images, or it remembers them) is given the whole batch where
    several processes share one; without the images, which such terms do not read.
    """

    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext  # for parts of networks that a term runs
    relates: bool = False
    needs_index: bool = False  # reads `batch.index`, or counts on `pair.data.size` and labels; refused on a stream

    def draw(self, generator: torch.Generator, index: Int64[Tensor, "B"]) -> Mapping[str, Tensor]:
        """What this step needs of randomness. `index`, on the CPU, is of the rows that the term will be given.

        Called outside the compiled step; what it returns comes back on the device, as `batch.draws[name of the term]`.
        """
        return {}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """The loss."""
        raise NotImplementedError

    def remembering(
        self, student: Outputs, teacher: Outputs, batch: Batch
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        """The loss, and what `update` is to be given of this step; nothing, for terms without a memory."""
        return self(student, teacher, batch), {}

    def update(self, seen: Mapping[str, Tensor], batch: Batch) -> None:
        """Store what `remembering` returned, once the step's gradients are there. Not called where it is empty."""

    def watch(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Measurements for the log, as means over the batch. At evaluation the side that does not train is empty."""
        return {}


def compares_images(term: Term) -> bool:
    """Whether a term compares the images of a batch with each other, and remembers no others to compare them with."""
    return term.relates and not term.needs_index and type(term).update is Term.update


@dataclass(frozen=True)
class Stage:
    """One training: entering it freezes everything; `trains` alone becomes trainable.

    `trains` names "student", modules of the plan, or terms of this stage; `frozen`, modules of the student that stay
    frozen and in eval mode all the same. A `shared` stage depends on the teacher and
    its data alone: it is run once, its result kept in a cache and reused by every student.
    """

    name: str
    loss: Mapping[str, tuple[float, Term]]
    trains: tuple[str, ...]
    epochs: int
    optim: Optim
    shared: bool = False
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A method, ready to run. `modules` are what two stages share; terms hold them unregistered.

    `notes` are what a user should know before the run: memory that the method takes, what it found of the networks.
    """

    stages: tuple[Stage, ...]
    views: Views
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Method = Callable[..., Plan]
"""`method(pair, *, epochs, optim, **options) -> Plan`: the student's schedule, then the method's own keywords."""
