"""Arguments of the package's functions: what they may be in Python, and what is refused."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from torch.utils.data import Dataset

from sskd.data.in_memory import in_memory
from sskd.data.source import Source
from sskd.errors import UserError, unknown
from sskd.optim import Optim
from sskd.reading import Reading
from sskd.settings import Training
from sskd.validation import convert

if TYPE_CHECKING:
    Named = str | nn.Module
    Data = str | Dataset[Any] | Mapping[str, Any] | Sequence[Any]
else:
    Named = Data = str  # the command line, which reads these annotations, knows names only
"""A network's name or place; in Python also a module. A data set's; in Python also images, see `api.distillation`."""

Side = Literal["student", "teacher"]


def network_argument(network: Named | None, side: Side) -> tuple[str | None, dict[Side, nn.Module]]:
    """A network's name; and the module, where one was handed over.

    Raises:
        UserError: something else.
    """
    if isinstance(network, nn.Module):
        return f"module:{type(network).__name__}", {side: network}
    if network is not None and not isinstance(network, str):
        raise UserError(f"A {side} is a network's name or place, or a torch.nn.Module; got {network!r:.80}.")
    return network, {}


def data_argument(data: Data, reading: Reading) -> tuple[str, Source | None]:
    """A data set's name; and the images, where they were handed over.

    Raises:
        UserError: an empty name; images of a kind that cannot be taken.
    """
    if isinstance(data, str):
        if not data.strip():
            raise UserError("data is empty. Name a data set (`sskd list data`) or a folder.")
        return data, None
    return in_memory(data, reading)


def refuse_weights_alone(option: str, weights: str | None, place: str | None) -> None:
    """Refuse the name of a set of weights where the option says no place that could hold several.

    Raises:
        UserError: names the option.
    """
    if weights is not None and (place is None or place.startswith("module:")):
        raise UserError(
            f"{option}_weights says which weights of a file are meant, but {option} names no file. Give one, or leave "
            f"{option}_weights out."
        )


def training_arguments(training: Mapping[str, Any], function: Callable[..., object]) -> dict[str, Any]:
    """The settings among a function's arguments, checked and converted.

    They stay a dictionary: the command line finds the options of a function in its call of `Training(**training)`.

    Raises:
        UserError: an argument that does not exist, with the nearest names; a value of another type or out of range.
    """
    known = [field.name for field in fields(Training)]
    for name in training:
        if name in (field.name for field in fields(Optim)):
            raise UserError(f"There is no argument named {name!r}: it is one of optim's. Say optim=Optim({name}=...).")
        if name not in known:
            own = [name for name in inspect.signature(function).parameters if name != "training"]
            raise unknown("argument", name, [*known, *own])
    return vars(convert(training, Training, ""))


def run_folder(out: str | None, data: str, network: str, method: str, training: Training) -> Path:
    """Where a run goes: as given, or named by what it is."""
    data_name, name = (re.sub(r"[^\w.-]+", "-", Path(text.rpartition(":")[2]).name) for text in (data, network))
    return Path(out or f"runs/{data_name}-{name}-{method}-seed{training.seed}")
