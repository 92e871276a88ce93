"""What a person sees of a running grid: a table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sskd.bench.labels import Labels
from sskd.bench.results import progress, read_cell
from sskd.bench.task import Outcome, Task
from sskd.terminal import Table, Terminal

REFRESH = 2.0  # seconds


class Watch:
    """Shows each pair's methods and seeds, and how far what runs is. Use it as a context manager."""

    def __init__(self, tasks: Sequence[Task], console: Console | None = None) -> None:
        self.tasks = list(tasks)
        self.console = console or Terminal()
        self.failed: dict[str, str] = {}
        self._done = {task.name: _accuracy(task) for task in tasks if task.finished}
        self._epochs = {task.name: progress(task) for task in tasks if task.begun}
        self._began = self._shown = time.monotonic()
        self._first = len(self._done)
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> "Watch":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.update(self._view(), refresh=True)
            self._live.stop()

    def tick(self) -> None:
        """Look at the runs again, every few seconds."""
        if time.monotonic() - self._shown < REFRESH:
            return
        self._shown = time.monotonic()
        for task in self.tasks:
            if task.begun and task.name not in self._done and task.name not in self.failed:
                self._epochs[task.name] = progress(task)
        if self._live:
            self._live.update(self._view(), refresh=True)

    def ended(self, outcome: Outcome) -> None:
        """Say how a task ended."""
        task = outcome.task
        if outcome.ok:
            self._done[task.name] = _accuracy(task)
        else:
            self.failed[task.name] = outcome.message
        what = f"{self._done[task.name]:.2f} %" if outcome.ok else f"FAILED: {outcome.message}"
        left = f"{len(self._done)} of {len(self.tasks)} finished{self._left()}"
        self.console.print(f"{task.name}: {what} ({left})", highlight=False, soft_wrap=True, markup=False)

    def _left(self) -> str:
        new, open_ = len(self._done) - self._first, len(self.tasks) - len(self._done) - len(self.failed)
        if not new or not open_:
            return ""
        minutes = (time.monotonic() - self._began) / new * open_ / 60
        return f", about {minutes:.0f} min left"

    def _view(self) -> Group:
        pairs: dict[str, dict[str, list[Task]]] = {}
        for task in self.tasks:
            facts, label = task.facts, str(task.facts.get("label", task.facts["teacher"]))
            pair = f"{facts['teacher']} -> {facts['student']}" if "student" in facts else "teachers"
            pairs.setdefault(pair, {}).setdefault(label, []).append(task)
        tables = [_table(pair, rows, self._cell) for pair, rows in pairs.items()]
        return Group(*tables, Text(f"{len(self._done)} of {len(self.tasks)} finished{self._left()}"))

    def _cell(self, task: Task) -> str:
        if task.name in self._done:
            return f"{self._done[task.name]:.2f}"
        if task.name in self.failed:
            return "failed"
        stage, epoch = self._epochs.get(task.name, ("", 0))
        return f"{stage} {epoch}" if stage else "started" if task.begun else "."


def _table(title: str, rows: Mapping[str, Sequence[Task]], shown: Callable[[Task], str]) -> Table:
    seeds = list(dict.fromkeys(_column(task) for tasks in rows.values() for task in tasks))
    table = Table("", *seeds, title=title, title_justify="left")
    for label, tasks in rows.items():
        by_column = {_column(task): shown(task) for task in tasks}
        table.add_row(label, *(by_column.get(seed, "") for seed in seeds))
    return table


def _column(task: Task) -> str:
    short = Labels.read(task.facts).short
    return f"seed {task.facts['seed']}" + (f", {short}" if short else "")


def _accuracy(task: Task) -> float:
    return read_cell(task).last or 0.0
