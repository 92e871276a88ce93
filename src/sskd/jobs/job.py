"""A training, described by plain values."""

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from sskd.data import checked, load_source
from sskd.data.source import Source
from sskd.errors import UserError
from sskd.models.folders import FUNCTION, is_importable, untrusted
from sskd.models.load import Brought
from sskd.reading import Reading
from sskd.settings import Training
from sskd.validation import convert


@dataclass(frozen=True)
class Job:
    """A training: what is trained (`network`, from the weights `init`), on what, from whom and how.

    `modules` holds networks that were handed over as modules; `network` and `teacher.place` then are their names.
    `trust_code`: run what folders name as their architecture. It is said anew each time, by no run's or model's file.
    `source` holds images that were handed over; `data` then is a name with a hash of their content.

    Raises:
        UserError: a value of another type; a fraction that is none.
    """

    out: Path
    network: str
    data: str
    method: str
    training: Training
    teacher: Brought | None = None
    init: Brought | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fraction: float = 1.0
    teacher_data: Literal["full", "subset"] = "full"
    teacher_labels: Literal["clean", "noisy"] = "clean"
    cache: Path | None = None
    reading: Reading = field(default_factory=Reading)
    student_taps: Mapping[str, str] = field(default_factory=dict)
    teacher_taps: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[Literal["student", "teacher"], nn.Module] = field(default_factory=dict)
    trust_code: bool = False
    source: Source | None = None

    def load_source(self) -> Source:
        """The images.

        Raises:
            UserError: there is no such data set, or it cannot be read.
        """
        return load_source(self.data, self.reading) if self.source is None else checked(self.source, self.reading)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(Job)
        for name in ("method", "options", "fraction", "teacher_data", "teacher_labels", "student_taps", "teacher_taps"):
            convert(getattr(self, name), hints[name], name)
        if not 0 < self.fraction <= 1:
            raise UserError(f"The fraction of labels is {self.fraction}; expected more than 0 and at most 1.")

    def arguments(self) -> dict[str, Any]:
        """What must be equal for a run to be continued. Where it lies and where it is shown do not count."""
        names = ("network", "data", "method", "fraction", "teacher_data", "teacher_labels")
        values = {name: getattr(self, name) for name in names}
        values |= {name: dict(getattr(self, name)) for name in ("options", "student_taps", "teacher_taps")}
        values |= {name: asdict(getattr(self, name)) for name in ("training", "reading")}
        values |= {name: asdict(one) if (one := getattr(self, name)) else None for name in ("teacher", "init")}
        for name in ("device", "tensorboard", "workers", "checkpoint_every"):
            del values["training"][name]
        return values


def usual_arguments() -> dict[str, Any]:
    """What is meant by an argument that a run's config says nothing of, because the run is older."""
    return Job(Path(), "", "", "", Training()).arguments()


def restored(out: Path, arguments: Mapping[str, Any], trust_code: bool = False) -> Job:
    """The job of a run in `out`, from the arguments that its config holds.

    Raises:
        UserError: arguments that this version does not know, or values that they cannot have; arguments that name
            code, unless that is trusted.
    """
    if not trust_code and (named := _named_code(arguments)):
        raise UserError(untrusted(f"{out}/config.json", named))
    try:
        described = {name: value for name, value in arguments.items() if name != "trust_code"}
        plain: Any = convert({**described, "out": out}, _Described, "arguments")
    except UserError as error:
        raise UserError(
            f"{out}/config.json cannot be understood ({error}) Restore it, or look at the run with the version of sskd "
            "that it names under environment."
        ) from error
    values = {each.name: getattr(plain, each.name) for each in fields(plain)}
    return Job(**values, trust_code=trust_code)


_Described = make_dataclass(
    "_Described", [(f.name, f.type, f) for f in fields(Job) if f.name not in ("modules", "source", "trust_code")]
)
"""What of a job a config holds: no objects, and no trust."""


def _named_code(arguments: Mapping[str, Any]) -> list[str]:
    """What of a config's arguments a job would import: networks, the method, and options such as a pretext."""
    found = [arguments.get("network"), arguments.get("method")]
    for name in ("teacher", "init"):
        if isinstance(brought := arguments.get(name), dict):
            found += [brought.get("architecture")]
            found += [brought.get("place")] if FUNCTION.fullmatch(str(brought.get("place"))) else []
    options = arguments.get("options")
    found += [*options.values()] if isinstance(options, dict) else []
    named = [one for one in found if isinstance(one, str) and is_importable(one)]
    return [*dict.fromkeys(named)]
