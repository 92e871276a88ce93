"""What a person sees of a run: a bar with the time left on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sskd.escaping import visible
from sskd.terminal import Terminal
from sskd.train.distributed import launched
from sskd.train.protocols import Record

QUIET = 10.0  # seconds between two plain lines


class Display:
    """Prints a run's progress; `title` says which run, in each line. Use it as a context manager."""

    def __init__(self, console: Console | None = None, title: str = "") -> None:
        self.console = console or Terminal(quiet=launched().rank > 0)  # of several processes the first speaks
        self.title = title
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._began = self._printed = time.monotonic()
        self._first = 0.0

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def progress(self, stage: str, epoch: int, epochs: int, share: float) -> None:
        """Move the bar, or print a line if the last one is some time ago."""
        self._enter(stage, epoch)
        if self._bar is not None and self._task is not None:
            description = visible(self._titled(f"{stage} epoch {epoch + 1}/{epochs}"))
            self._bar.update(self._task, completed=epoch + share, total=epochs, description=description)
        elif time.monotonic() - self._printed > QUIET:
            self._line(f"{stage} epoch {epoch + 1}/{epochs}: {share:.0%} {self._left(epoch + share, epochs)}")

    def epoch(self, record: Record, epochs: int) -> None:
        """Say what an epoch came to; without a terminal now and then, and always of the last of `epochs`."""
        self._enter(record["stage"], record["epoch"] - 1)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=record["epoch"])
            if "test" in record:
                self._line(describe(record))
        elif time.monotonic() - self._printed > QUIET or record["epoch"] == epochs:
            self._line(describe(record))

    def note(self, text: str) -> None:
        """Print a line."""
        self._line(text)

    def _line(self, text: str) -> None:
        self._printed = time.monotonic()
        self.console.print(self._titled(text), highlight=False, soft_wrap=True, markup=False)

    def _titled(self, text: str) -> str:
        return f"{self.title}: {text}" if self.title else text

    def _enter(self, stage: str, epoch: int) -> None:
        if stage == self._stage:
            return
        self._stage, self._began, self._first = stage, time.monotonic(), float(epoch)
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(visible(self._titled(stage)), total=None)

    def _left(self, done: float, epochs: int) -> str:
        gone = done - self._first
        if gone <= 0:
            return ""
        seconds = (time.monotonic() - self._began) / gone * (epochs - done)
        return f"({seconds / 60:.1f} min left)"


def describe(record: Record) -> str:
    """One line for an epoch's record."""
    parts = [f"{record['stage']} epoch {record['epoch']}: loss {record['loss']['total']:.3f}"]
    for split in ("train", "fresh", "validation", "test"):
        parts += _shares(split, record.get(split, {}))
    return " · ".join([*parts, f"{record['images_per_s']:.0f} images/s"])


def _shares(split: str, values: Mapping[str, Any]) -> list[str]:
    names = {"top1": "", "ss_accuracy": " ss"}
    return [f"{split}{names[key]} {values[key]:.2%}" for key in names if key in values]
