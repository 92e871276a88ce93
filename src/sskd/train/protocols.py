"""Whom the loop talks to: where a run is kept, where shared results are kept, who is told."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from torch import Tensor

from sskd.methods.plan import Stage
from sskd.run_files import Record as Record
from sskd.train.checkpoint import Checkpoint


class Keeper(Protocol):
    """Where a run keeps its state and its log."""

    def load(self) -> Checkpoint | None:
        """The last checkpoint, or None; the log is cut back to it."""
        ...

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint."""
        ...

    def log(self, record: Record) -> None:
        """Add a line to the log."""
        ...


class Shared(Protocol):
    """The cache of what depends on the teacher and its data alone."""

    def hold(self, stage: Stage, waiting: Callable[[str], None]) -> AbstractContextManager[None]:
        """Keep others from running the same stage meanwhile; `waiting` is told if one already does."""
        ...

    def find(self, stage: Stage) -> tuple[Path, dict[str, dict[str, Tensor]]] | None:
        """Place and module states of a stage that was run before, or None."""
        ...

    def keep(self, stage: Stage, states: dict[str, dict[str, Tensor]], record: Record) -> Path:
        """Store what a stage has trained, with its last log record."""
        ...


class Listener(Protocol):
    """Who is told how far the run is."""

    def progress(self, stage: str, epoch: int, epochs: int, share: float) -> None:
        """`share` of this epoch is done."""
        ...

    def epoch(self, record: Record, epochs: int) -> None:
        """One of so many epochs has ended."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


class Silent:
    """Keeper, cache and listener of a process that is not the first: the first speaks for all."""

    def load(self) -> Checkpoint | None:
        """Nothing; the first process hands its checkpoint out."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Nothing."""

    def log(self, record: Record) -> None:
        """Nothing."""

    def hold(self, stage: Stage, waiting: Callable[[str], None]) -> AbstractContextManager[None]:
        """The first process holds the stage."""
        return nullcontext()

    def find(self, stage: Stage) -> tuple[Path, dict[str, dict[str, Tensor]]] | None:
        """Nothing; the first process hands out what it finds."""

    def keep(self, stage: Stage, states: dict[str, dict[str, Tensor]], record: Record) -> Path:
        """Nothing."""
        return Path()

    def progress(self, stage: str, epoch: int, epochs: int, share: float) -> None:
        """Nothing."""

    def epoch(self, record: Record, epochs: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
