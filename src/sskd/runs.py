"""A run directory: config.json, log.jsonl, checkpoint.pt, student/, result.json. And the cache that runs share."""

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor

from sskd.content_hash import content_hash
from sskd.errors import UserError
from sskd.files import append_line, explained, flat, is_temporary, locks_missing, make_folder, write_atomic, write_json
from sskd.methods.plan import Stage, Term
from sskd.run_files import START_ANEW, Config, Record, deciding, parse_line, read_config, read_result, whole_lines
from sskd.tensor_files import read_tensor_file, tensor_file
from sskd.train.checkpoint import Checkpoint, CheckpointFiles


def _silent(_: str) -> None:
    pass


class Run:
    """One training, kept in a folder of its own. The folder's config decides what may continue there."""

    def __init__(self, path: Path, note: Callable[[str], None] = _silent) -> None:
        """`note` is told what a user should know of the run's files."""
        self.path, self.note = path, note
        self.student = path / "student"
        self.checkpoints = CheckpointFiles(path)
        self._config, self._log, self._result = path / "config.json", path / "log.jsonl", path / "result.json"

    def config(self) -> Config | None:
        """The config that the run was started with, or None where the folder is new.

        Raises:
            UserError: the path is a file, a folder that holds something other than a run, or not to be read.
        """
        try:
            if self._config.exists():
                return read_config(self._config)
            taken = self.path.exists() and not (self.path.is_dir() and all(map(is_temporary, self.path.iterdir())))
        except OSError as error:
            raise UserError(f"{self.path} cannot be looked into: {error.strerror}. Choose another --out.") from error
        if taken:
            raise UserError(f"{self.path} exists and is not a run directory. Choose another --out, or remove it.")
        return None

    def start(self, config: Config) -> None:
        """Write the config of a new run, with the hash of what decides its result."""
        make_folder(self.path)
        write_json(self._config, {**config, "sha256": _hash_of(config)})

    def refuse_edited(self) -> None:
        """Refuse a config that was changed by hand: what it decides would be another run from here on.

        Raises:
            UserError: it was changed in what decides the result.
        """
        config = self.config() or {}
        if "sha256" in config and config["sha256"] != _hash_of(config):  # older runs have none
            raise UserError(
                f"{self._config} was changed since the run began: its arguments, data, teacher, stages or execution "
                "are not those that were written (SHA-256). Restore it, or start anew with another --out."
            )

    def same(self, now: Config, key: str, but: Container[str] = (), usual: Config | None = None) -> None:
        """Refuse to continue a run whose `key` (arguments, data, teacher) was another, `but` for some names in it.

        `usual` holds what is meant where the run says nothing: it may be older than an argument.

        Raises:
            UserError: lists what differs; config.json says nothing of it.
        """
        config = self.config() or {}
        if key not in config:
            raise UserError(f"{self._config} has no {key}, so no run wrote it as it is. {START_ANEW}")
        then = flat(json.loads(json.dumps(usual or {}))) | flat(config[key])
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
        """What a finished run came to; None where it is not finished.

        Raises:
            UserError: result.json is damaged, or holds no result.
        """
        return read_result(self._result) if self._result.exists() else None

    def finish(self, result: Record) -> None:
        """Write the result; from now on the run is finished."""
        write_json(self._result, result)

    def load(self) -> Checkpoint | None:
        """The last checkpoint that is whole, or None. The log is cut back to the line at which it was written.

        Raises:
            UserError: no checkpoint is whole, it is of another run, or the log has lost lines that it had or holds
                lines that no run writes.
        """
        checkpoint, note = self.checkpoints.load(deciding(self.config() or {}))
        count = checkpoint["log_lines"] if checkpoint else 0
        lines = whole_lines(self._log)
        if len(lines) < count:
            raise UserError(
                f"{self._log} holds {len(lines)} lines, but the checkpoint beside it was written at line {count}. "
                "Restore the log, or start anew with another --out."
            )
        for i, line in enumerate(lines[:count], 1):  # now: at the end a training would have been for nothing
            parse_line(line, f"{self._log}, line {i}")
        if self._log.exists():
            write_atomic(self._log, b"".join(lines[:count]))
        if note:
            self.note(note)
        return checkpoint

    def last_checkpoint(self) -> Checkpoint:
        """The checkpoint with which a finished run ended.

        Raises:
            UserError: it is damaged, or of another run.
        """
        try:
            return self.checkpoints.load_last(deciding(self.config() or {}))
        except UserError as error:
            raise UserError(
                f"{error} Nothing else holds the weights of the run's heads: restore it, or move it away to do without."
            ) from error

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; the one before it is kept."""
        self.checkpoints.save(checkpoint, len(whole_lines(self._log)), deciding(self.config() or {}))

    def log(self, record: Record) -> None:
        """Add a line to the log."""
        append_line(self._log, json.dumps(record))

    def records(self) -> list[Record]:
        """The lines of the log; a last line that was cut off in writing is left out.

        Raises:
            UserError: another line is damaged.
        """
        return [parse_line(line, f"{self._log}, line {i}") for i, line in enumerate(whole_lines(self._log), 1)]


def _hash_of(config: Config) -> str:
    return content_hash(json.loads(json.dumps(deciding(config))))


_NO_RECIPE = ("training", "borrowed", "relates", "needs_index")  # how a term is run, not what it computes


def _plain(term: Term) -> Config:
    """Numbers and names of a term and the modules in it, such as its loss: what their descriptions leave out."""
    kinds = (bool, int, float, str, tuple, list)
    return {
        f"{module}.{key}" if module else key: str(value)
        for module, part in term.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, kinds) and not key.startswith("_") and key not in _NO_RECIPE
    }


class SharedCache:
    """What depends on the teacher and its data alone, under a hash of all that it depends on.

    Several runs may share a folder at the same time; `run` is the one that asks.
    """

    def __init__(self, folder: Path, address: Config, run: Path, note: Callable[[str], None] = _silent) -> None:
        """`note` is told what a user should know of the files."""
        self.folder, self.address, self.note = folder, address, note
        self.writer = hashlib.sha256(str(run.resolve()).encode(errors="surrogateescape")).hexdigest()[:8]

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
        file = path.with_name(f".{path.name}.lock")
        if locks_missing(file):  # then two runs may train the same at the same time, and the second writes it again
            yield
            return
        lock = FileLock(file)
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
        """The stored state of each module that the stage trains, or None; a damaged file counts as none.

        Raises:
            UserError: what lies there is no file, and so could not be replaced in the end.
        """
        path = self.path(stage)
        if not os.path.lexists(path):
            return None
        if not path.is_file():
            raise UserError(f"{path} is no file, and the cache would write one there. Remove it.")
        try:
            states = self._read(path, stage)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            self.note(f"{stage.name}: {path} is damaged ({error}); it is made anew.")
            return None
        return path, states

    def _read(self, path: Path, stage: Stage) -> dict[str, dict[str, Tensor]]:
        metadata, tensors = read_tensor_file(path)
        if json.loads(metadata.get("recipe", "null")) != json.loads(json.dumps(self.recipe(stage))):
            raise ValueError("it is of another recipe")
        states: dict[str, dict[str, Tensor]] = {name: {} for name in stage.trains}
        for key, value in tensors.items():
            name, _, rest = key.partition("/")
            states[name][rest] = value
        return states

    def keep(self, stage: Stage, states: dict[str, dict[str, Tensor]], record: Record) -> Path:
        """Store the modules' states with the recipe, the stage's last record and a hash of all."""
        path = self.path(stage)
        make_folder(self.folder)
        tensors = {f"{name}/{key}": value for name, state in states.items() for key, value in state.items()}
        metadata = {"recipe": json.dumps(self.recipe(stage)), "record": json.dumps(record)}
        write_atomic(path, tensor_file(tensors, metadata), self.writer)
        return path
