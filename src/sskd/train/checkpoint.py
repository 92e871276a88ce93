"""Checkpoints: what they hold, how they are checked, and the last two of a run.

A checkpoint file is a dictionary that `torch.load(path, weights_only=True)` reads: the keys of `StoredCheckpoint`.
"""

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor

from sskd.content_hash import content_hash
from sskd.errors import UserError
from sskd.files import explained, write_atomic
from sskd.run_files import Config, Record, differences
from sskd.validation import convert


class MeterState(TypedDict):
    """See `meters.Meter`."""

    names: list[str]
    sums: Tensor | None
    first_bad: Tensor | None
    weight: int


class PartState(TypedDict):
    """What is done of an epoch: see `meters.Part`."""

    steps: int
    seconds: float
    meter: MeterState


class Checkpoint(TypedDict):
    """Where a training stands: all that it takes to go on as if it had never stopped."""

    stage: str
    epoch: int  # finished ones, of the stage
    part: PartState  # of the epoch that has begun
    modules: dict[str, dict[str, Any]]  # state dicts of all that the stage may train, and of the student's backbone
    optimizer: dict[str, Any]
    last: Record  # of the last evaluation; empty before the first
    best: dict[str, Any]  # `record` and `student` of the epoch that was best on validation; empty where there is none


class StoredCheckpoint(Checkpoint):
    """A checkpoint as it lies in a file. Those of the first releases have neither `run` nor `sha256`."""

    log_lines: int  # that the log had when it was written
    run: NotRequired[str]  # what decides the run's result (`run_files.deciding`), as JSON
    sha256: NotRequired[str]  # `content_hash` of all else


class DamagedCheckpointError(UserError):
    """A checkpoint that cannot be read, or does not hold what was written."""


def save_checkpoint(path: Path, content: Mapping[str, Any], previous: Path | None = None) -> None:
    """Write tensors and plain values with their hash. `previous`: see `files.write_atomic`.

    Raises:
        MemoryError: there is no room to put them together.
        UserError: the disk is full or cannot be written.
    """
    buffer = io.BytesIO()
    try:
        torch.save({**content, "sha256": content_hash(content)}, buffer)
    except RuntimeError as error:
        if "unexpected pos" not in str(error):
            raise
        # What torch's writer says when a write fails, and a buffer's fails for want of memory alone.
        raise MemoryError("a checkpoint could not be put together") from error
    write_atomic(path, buffer.getvalue(), previous=previous)


def load_checkpoint(path: Path) -> StoredCheckpoint:
    """Read a checkpoint onto the CPU and check that it is whole.

    Raises:
        DamagedCheckpointError: it is not, or it is no checkpoint of a run.
    """
    where = f"The checkpoint {path}"
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums, and trusts the sizes it reads
            if broken := archive.testzip():
                raise ValueError(f"the checksum of {broken} is wrong")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        convert(content, StoredCheckpoint, "its content")
    except Exception as error:  # whatever the unpickler makes of damaged bytes
        raise DamagedCheckpointError(f"{where} cannot be read ({_reason(error)}).") from error
    written = content.pop("sha256", None)
    if written is not None and written != content_hash(content):
        raise DamagedCheckpointError(f"{where} is damaged: it does not hold what was written (SHA-256).")
    return content  # type: ignore[return-value]


def _reason(error: Exception) -> str:
    """In one line what is wrong with a file; torch's advice to run the code in it is left out."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds something other than tensors and plain values, or is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).rstrip(".").splitlines()), "") or type(error).__name__


class Restored(NamedTuple):
    """A checkpoint that was read, and what is to be said of it."""

    checkpoint: StoredCheckpoint | None
    note: str = ""


class CheckpointFiles:
    """The last two checkpoints in a run's folder: where one does not hold what was written, the other is taken."""

    def __init__(self, folder: Path) -> None:
        self.last, self.previous = folder / "checkpoint.pt", folder / "checkpoint.previous.pt"

    def save(self, checkpoint: Checkpoint, log_lines: int, run: Config) -> None:
        """Write a checkpoint; the one that was the last becomes the one before. `run`: see `run_files.deciding`.

        Raises:
            UserError: the disk is full or cannot be written; what was there can still be loaded.
        """
        content = {**checkpoint, "log_lines": log_lines, "run": json.dumps(run, sort_keys=True)}
        save_checkpoint(self.last, content, self.previous)

    def load_last(self, run: Config) -> StoredCheckpoint:
        """The last checkpoint.

        Raises:
            UserError: it is damaged, or of another run.
        """
        checkpoint = load_checkpoint(self.last)
        if other := _other_run(self.last, checkpoint, run):
            raise UserError(other)
        return checkpoint

    def load(self, run: Config) -> Restored:
        """The last checkpoint that is whole; one that is damaged is replaced by the one before.

        Raises:
            UserError: none is whole, or the checkpoint is of another run.
        """
        damage = list[UserError]()
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                checkpoint = load_checkpoint(path)
            except DamagedCheckpointError as error:
                damage.append(error)
                continue
            if other := _other_run(path, checkpoint, run):
                left = f"goes on from {self.previous.name}" if self.previous.exists() else "starts anew"
                raise UserError(f"{other} Put back the one that belongs there; without any the run {left}.")
            if path == self.last:
                return Restored(checkpoint)
            why = str(damage[0]) if damage else f"{self.last} is missing."  # killed between two renames
            with explained(self.last):
                path.replace(self.last)  # before the damaged one takes its place at the next save
            return Restored(checkpoint, f"{why} The run goes on from the one before, {path.name}.")
        if damage:
            files = " and ".join(str(path) for path in (self.last, self.previous) if path.exists())
            raise UserError(f"{' '.join(map(str, damage))} Delete {files} to start the run anew.")
        return Restored(None)


def _other_run(path: Path, checkpoint: StoredCheckpoint, run: Config) -> str:
    """What tells a checkpoint's run from this one; empty where nothing does."""
    stored = json.loads(checkpoint["run"]) if "run" in checkpoint else run  # the first releases did not say
    other = differences(stored, json.loads(json.dumps(run)))
    return f"The checkpoint {path} is of another run than the config.json beside it ({other})." if other else ""
