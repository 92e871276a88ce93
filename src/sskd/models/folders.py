"""config.json of a model's folder: read as plain values, so that nothing it says can run code or fetch anything."""

import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timm.models import create_model, model_entrypoint, split_model_name_tag
from torch import nn

from sskd.errors import UserError
from sskd.hub import hub_folder
from sskd.models.zoo import resolve
from sskd.ranges import LARGEST_SIDE, need_between
from sskd.validation import convert

TORCHVISION = "torchvision:"
HANDED_OVER = "module:"  # before the class of a module that was handed over in Python
MOST_CLASSES = 1_000_000
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")  # in timm's order

Plain = bool | int | float | str | None | list[bool | int | float | str]


@dataclass(frozen=True)
class FolderConfig:
    """What config.json says of a network, as far as it is used.

    `class_names`: "#0", "#1"... where it has none. `arguments`: with which timm makes it, beside the number of classes.
    `settings`: what pretrained_cfg says of images and layers, nothing of where weights are. `ours`: `save_network` has
    written it.
    """

    architecture: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    crop_pct: float
    arguments: Mapping[str, Plain]
    settings: Mapping[str, Any]
    ours: bool


@dataclass(frozen=True)
class _Stated:
    architecture: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int, int]
    crop_pct: float | None = None
    num_classes: int | None = None
    label_names: tuple[str, ...] | None = None
    model_args: dict[str, Plain] = field(default_factory=dict)
    written_by: str = ""

    def __post_init__(self) -> None:
        for side in self.input_size[1:]:
            need_between("pretrained_cfg.input_size", side, 1, LARGEST_SIDE)
        need_between("pretrained_cfg.crop_pct", self.crop_pct, 0, 1, "(]")
        for name, count in Counter(self.label_names or ()).items():
            if count > 1 or not name.strip():
                what = f"{name!r} {count} times" if name.strip() else "a class without a name"
                raise UserError(f"label_names has {what}. Correct them, or remove them and state num_classes.")


# Of timm's pretrained_cfg: what it says of images and layers. The rest says where weights come from.
_SETTINGS = (
    "num_classes",
    "input_size",
    "mean",
    "std",
    "crop_pct",
    "crop_mode",
    "interpolation",
    "pool_size",
    "first_conv",
    "classifier",
    "fixed_input_size",
    "test_input_size",
    "test_crop_pct",
    "min_input_size",
    "label_names",
    "label_offset",
)
_OF_IMAGES = ("mean", "std", "input_size", "crop_pct")
_HOLDS = "A network's folder holds config.json and model.safetensors, as a finished run writes them to its student/."


FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""What a place looks like that is neither a path nor an address, but package.module:function."""


def is_factory(name: str) -> bool:
    """Whether a network's name stands for code of the user's: package.module:function."""
    return ":" in name and not name.startswith((TORCHVISION, "hf-hub:", "local-dir:"))


def is_importable(name: str) -> bool:
    """Whether a network's name stands for code that a command can import; modules handed over in Python have none."""
    return is_factory(name) and not name.startswith(HANDED_OVER)


def read_folder_config(file: Path) -> FolderConfig:
    """Read and check a folder's config.json.

    Raises:
        UserError: it is missing, no JSON or of another shape, or its model_args are not of the network.
    """
    where = str(file)
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is missing or damaged ({error!r}). {_HOLDS}") from error
    config = convert(config, dict[str, Any], where, _HOLDS)
    settings = convert(config.get("pretrained_cfg", config), dict[str, Any], f"{where}, pretrained_cfg", _HOLDS)
    values: dict[str, Any] = {key: settings[key] for key in _OF_IMAGES if key in settings}
    names = ("architecture", "num_classes", "label_names", "model_args", "written_by")
    values |= {key: config[key] for key in names if config.get(key) is not None}
    stated = convert(values, _Stated, where, _HOLDS)
    class_names = stated.label_names or unnamed(_count(stated.num_classes, file))
    arguments = {key: value for key, value in stated.model_args.items() if key != "num_classes"}
    settings = {key: settings[key] for key in _SETTINGS if key in settings} | {"num_classes": len(class_names)}
    settings |= {"label_names": list(stated.label_names)} if stated.label_names else {}
    _refuse_arguments(stated.architecture, arguments, file)
    return FolderConfig(
        stated.architecture,
        class_names,
        stated.mean,
        stated.std,
        stated.input_size[-1],
        stated.crop_pct or 1.0,
        arguments,
        settings,
        bool(stated.written_by),
    )


def unnamed(classes: int) -> tuple[str, ...]:
    """Names for classes of which only the number is known: none that a data set would have, such as "3"."""
    return tuple(f"#{i}" for i in range(classes))


def _count(classes: int | None, file: Path) -> int:
    if classes is None or not 1 <= classes <= MOST_CLASSES:
        raise UserError(f"{file} has no label_names, and num_classes is {classes}: a number of classes is needed.")
    return classes


def _refuse_arguments(architecture: str, arguments: Mapping[str, Plain], file: Path) -> None:
    """Refuse what the network's class does not take itself: timm's builder would fetch or load by it.

    Raises:
        UserError: names them.
    """
    if not arguments or is_factory(architecture):
        return
    unknown = sorted(arguments.keys() - _constructor_arguments(architecture))
    if unknown:
        raise UserError(
            f"{file}: model_args has {', '.join(unknown)}, which {architecture} does not take. Arguments from a file "
            "may only shape the network; remove them from the file."
        )


def _constructor_arguments(architecture: str) -> frozenset[str]:
    """The names that classes of the architecture's module take to build a network."""
    if architecture.startswith((TORCHVISION, "hf-hub:", "local-dir:")):
        return frozenset()
    module = sys.modules[model_entrypoint(split_model_name_tag(resolve(architecture))[0]).__module__]
    classes = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, nn.Module)]
    taken = {name for one in classes for name in inspect.signature(one.__init__).parameters}
    return frozenset(taken - {*inspect.signature(create_model).parameters})


def architecture_of(config: FolderConfig, file: Path, named: str | None = None, trust_code: bool = False) -> str:
    """The architecture to build for a folder; code only where the user names it or trusts the folder.

    `named`: the architecture in the user's arguments, if any.

    Raises:
        UserError: the file names code that nobody has named or trusted, or another address in place of a network.
    """
    architecture = config.architecture
    if named is not None and is_factory(named) and is_factory(architecture):
        return named
    if architecture.startswith(HANDED_OVER):
        raise UserError(
            f"{file} is of a module that was handed over in Python ({architecture}), which no file describes. Name a "
            "function that returns such a module, package.module:factory (evaluate, probe: --architecture, distill: "
            "--teacher_architecture, teacher: --model). Other commands take a run: sskd teacher --init "
            f"{file.parent} --model package.module:factory --data DATA --epochs 0 --out RUN."
        )
    if is_factory(architecture):
        if not trust_code:
            ways = (
                f", or name it yourself: evaluate, probe: --architecture {architecture}, distill: "
                "--teacher_architecture, teacher: --model"
            )
            raise UserError(untrusted(str(file), [architecture], ways))
        return architecture
    if architecture.startswith(("hf-hub:", "local-dir:")):
        raise UserError(f"{file} gives an address as its architecture ({architecture}). It has to name a network.")
    return resolve(architecture)


def untrusted(file: str, names: list[str], ways: str = "") -> str:
    """The message for a file that names code: what would be run, and how to allow it; `ways` are others than trust."""
    said = " and ".join(f"{name.partition(':')[2]} of the module {name.partition(':')[0]}" for name in names)
    return (
        f"{file} names {', '.join(names)}: reading it would import and run {said}. If you trust whoever wrote the "
        f"file, say --trust_code true (in Python: trust_code=True){ways}."
    )


def place_folder(place: str, *files: str) -> Path:
    """The folder of a `local-dir:` or `hf-hub:` address; of the latter, after these of its files were downloaded.

    Raises:
        UserError: the hub does not answer, or holds no such model.
    """
    if place.startswith("local-dir:"):
        return Path(place.removeprefix("local-dir:"))
    return hub_folder(place, files)


def weights_file(folder: Path) -> Path:
    """The folder's weights: the first there is of timm's usual names.

    Raises:
        UserError: none.
    """
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"There are no weights in {folder}; looked for {', '.join(WEIGHTS_FILES)}. {_HOLDS}")


def network_folder(path: Path) -> Path:
    """Where a run directory keeps its network; any other folder is one itself.

    Raises:
        UserError: the run is not finished.
    """
    inner = path / "student"
    if (inner / "config.json").is_file():
        return inner
    config = path / "config.json"
    if config.is_file() and '"arguments":' in config.read_text(errors="replace"):
        raise UserError(f"The run {path} is not finished: it has no {inner}. Repeat its command to finish it first.")
    return path
