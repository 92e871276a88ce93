"""A run directory: config.json, log.jsonl, checkpoint.pt, student/, result.json. And the cache that runs share."""

import hashlib
import json
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sskd.errors import UserError
from sskd.files import (
    append_line,
    explained,
    flat,
    is_temporary,
    load_checkpoint,
    make_folder,
    read_json,
    save_checkpoint,
    write_atomic,
    write_json,
)
from sskd.methods.plan import Stage, Term
from sskd.train.protocols import Record

Config = dict[str, Any]
CHECKPOINT = ("stage", "epoch", "part", "modules", "optimizer", "last", "best", "log_lines")


class Run:
    """One training, kept in a folder of its own. The folder's config decides what may continue there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.student = path / "student"
        self._config, self._log = path / "config.json", path / "log.jsonl"
        self._checkpoint, self._result = path / "checkpoint.pt", path / "result.json"

    def config(self) -> Config | None:
        """The config that the run was started with, or None where the folder is new.

        Raises:
            UserError: the path is a file, a folder that holds something other than a run, or not to be read.
        """
        try:
            if self._config.exists():
                return read_json(self._config)
            taken = self.path.exists() and not (self.path.is_dir() and all(map(is_temporary, self.path.iterdir())))
        except OSError as error:
            raise UserError(f"{self.path} cannot be looked into: {error.strerror}. Choose another --out.") from error
        if taken:
            raise UserError(f"{self.path} exists and is not a run directory. Choose another --out, or remove it.")
        return None

    def start(self, config: Config) -> None:
        """Write the config of a new run."""
        make_folder(self.path)
        write_json(self._config, config)

    def same(self, now: Config, key: str, but: Container[str] = (), usual: Config | None = None) -> None:
        """Refuse to continue a run whose `key` (arguments, data, teacher) was another, `but` for some names in it.

        `usual` holds what is meant where the run says nothing: it may be older than an argument.

        Raises:
            UserError: lists what differs.
        """
        then = flat(json.loads(json.dumps(usual or {}))) | flat((self.config() or {}).get(key, {}))
        now = flat(json.loads(json.dumps(now)))
        names = [name for name in sorted({*then, *now}) if name not in but]
        differing = [name for name in names if then.get(name) != now.get(name)]
        if differing:
            changes = "; ".join(f"{name}: {then.get(name)!r} there, {now.get(name)!r} now" for name in differing)
            raise UserError(
                f"{self.path} holds a run of another config ({key}: {changes}). "
                "Give the same arguments to continue it, or choose another --out."
            )

    def result(self) -> Record | None:
        """What a finished run came to; None where it is not finished."""
        return read_json(self._result) if self._result.exists() else None

    def finish(self, result: Record) -> None:
        """Write the result; from now on the run is finished."""
        write_json(self._result, result)

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, or None. The log is cut back to the line at which it was written.

        Raises:
            UserError: a damaged checkpoint, or a log that has lost lines that it had.
        """
        state = load_checkpoint(self._checkpoint, CHECKPOINT) if self._checkpoint.exists() else None
        kept = state.pop("log_lines") if state else 0
        lines = self._lines()
        if len(lines) < kept:
            raise UserError(
                f"{self._log} holds {len(lines)} lines, but the checkpoint beside it was written at line {kept}. "
                "Restore the log, or start anew with another --out."
            )
        if self._log.exists():
            write_atomic(self._log, b"".join(lines[:kept]))
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint."""
        save_checkpoint(self._checkpoint, {**state, "log_lines": len(self._lines())})

    def log(self, record: Record) -> None:
        """Add a line to the log."""
        append_line(self._log, json.dumps(record))

    def _lines(self) -> list[bytes]:
        if not self._log.exists():
            return []
        return [line for line in self._log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def records(self) -> list[Record]:
        """The lines of the log; a last line that was cut off in writing is left out.

        Raises:
            UserError: another line is damaged.
        """
        try:
            return [json.loads(line) for line in self._lines()]
        except ValueError as error:
            raise UserError(
                f"{self._log} is damaged ({error}). Restore it, or start anew with another --out."
            ) from error


_NO_RECIPE = ("training", "borrowed", "relates", "needs_index")  # how a term is run, not what it computes


def _plain(term: Term) -> Config:
    """A term's numbers and names: what its description as a module leaves out."""
    kinds = (bool, int, float, str, tuple, list)
    found = {key: value for key, value in vars(term).items() if isinstance(value, kinds) and not key.startswith("_")}
    return {key: str(value) for key, value in found.items() if key not in _NO_RECIPE}


class SharedCache:
    """What depends on the teacher and its data alone, under a hash of all that it depends on.

    Several runs may share a folder at the same time; `run` is the one that asks.
    """

    def __init__(self, folder: Path, address: Config, run: Path) -> None:
        self.folder = folder
        self.address = address
        self.writer = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]

    def recipe(self, stage: Stage) -> Config:
        """All that the stage's result depends on."""
        terms = {name: [weight, str(term), _plain(term)] for name, (weight, term) in stage.loss.items()}
        optim = {name: str(value) for name, value in vars(stage.optim).items()}
        return {**self.address, "stage": stage.name, "epochs": stage.epochs, "optim": optim, "terms": terms}

    def path(self, stage: Stage) -> Path:
        """Where the result of this stage lies, or would lie."""
        text = json.dumps(self.recipe(stage), sort_keys=True)
        return self.folder / f"{stage.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"

    @contextmanager
    def hold(self, stage: Stage, waiting: Callable[[str], None]) -> Iterator[None]:
        """Keep other runs from training the same stage at the same time; they wait, and then find it done."""
        make_folder(self.folder)
        path = self.path(stage)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        with explained(path):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                waiting(f"{stage.name}: another run is training it; waiting for {path}")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def find(self, stage: Stage) -> tuple[Path, dict[str, dict[str, Tensor]]] | None:
        """The stored state of each module that the stage trains, or None; a damaged file counts as none."""
        path = self.path(stage)
        if not path.exists():
            return None
        try:
            tensors = load(path.read_bytes())
        except SafetensorError:
            return None
        states: dict[str, dict[str, Tensor]] = {name: {} for name in stage.trains}
        for key, value in tensors.items():
            name, _, rest = key.partition("/")
            states[name][rest] = value
        return path, states

    def keep(self, stage: Stage, states: dict[str, dict[str, Tensor]], record: Record) -> Path:
        """Store the modules' states with the recipe and the stage's last record."""
        path = self.path(stage)
        make_folder(self.folder)
        tensors = {
            f"{name}/{key}": value.cpu().contiguous() for name, state in states.items() for key, value in state.items()
        }
        metadata = {"recipe": json.dumps(self.recipe(stage)), "record": json.dumps(record)}
        write_atomic(path, save(tensors, metadata), self.writer)
        return path
