"""Which task may run next."""

from collections.abc import Iterator, Sequence

from sskd.bench.task import Outcome, Task


class Schedule:
    """Hands out tasks whose teacher is there, and gives up those whose teacher failed."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._waiting = [task for task in tasks if not task.finished]
        self._there = {task.name for task in tasks if task.kind == "teacher" and task.finished}
        self._out = 0

    @property
    def done(self) -> bool:
        """Whether nothing is left and nothing runs."""
        return not self._waiting and not self._out

    def next(self) -> Task | None:
        """A task that may run now, or None."""
        for task in self._waiting:
            if task.teacher is None or task.teacher in self._there:
                self._waiting.remove(task)
                self._out += 1
                return task
        return None

    def again(self, task: Task) -> None:
        """Put a task back; it comes first."""
        self._out -= 1
        self._waiting.insert(0, task)

    def ended(self, outcome: Outcome) -> Iterator[Outcome]:
        """The outcome, and those of the tasks that can no longer run."""
        self._out -= 1
        yield outcome
        if outcome.task.kind != "teacher":
            return
        if outcome.ok:
            self._there.add(outcome.task.name)
            return
        lost = [task for task in self._waiting if task.teacher == outcome.task.name]
        for task in lost:
            self._waiting.remove(task)
            yield Outcome(task, False, f"its teacher {outcome.task.name} failed: {outcome.message}")
