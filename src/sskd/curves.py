"""A run's records as curves in TensorBoard, where it is installed."""

from pathlib import Path
from typing import Any

from sskd.train.protocols import Listener, Record


class Curves:
    """A listener that writes each epoch's numbers and passes everything on to the next listener."""

    def __init__(self, writer: Any, listener: Listener) -> None:
        self._writer, self._listener = writer, listener

    def progress(self, stage: str, epoch: int, epochs: int, share: float) -> None:
        """Pass on."""
        self._listener.progress(stage, epoch, epochs, share)

    def note(self, text: str) -> None:
        """Pass on."""
        self._listener.note(text)

    def epoch(self, record: Record, epochs: int) -> None:
        """Write every number of the record under STAGE/NAME, at the stage's epoch."""
        for name, value in record.items():
            values = {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
            for key, number in values.items():
                if isinstance(number, int | float) and key not in ("epoch", "step"):
                    self._writer.add_scalar(f"{record['stage']}/{key}", number, record["epoch"])
        self._writer.flush()
        self._listener.epoch(record, epochs)


def with_curves(listener: Listener, folder: Path) -> Listener:
    """The listener, with curves in `folder` if TensorBoard is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return listener
    try:
        return Curves(SummaryWriter(str(folder)), listener)  # type: ignore[no-untyped-call]
    except OSError as error:  # curves are no reason to stop: the log holds every number
        listener.note(f"No TensorBoard curves: {folder} could not be written ({error.strerror}).")
        return listener
