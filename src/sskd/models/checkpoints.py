"""Networks on disk: safetensors directories that timm loads, and published checkpoints, without running code."""

import argparse
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from sskd import __version__
from sskd.errors import UserError
from sskd.files import explained, make_folder, write_atomic
from sskd.models.matching import Containers, State
from sskd.models.misfit import COUNTER, difference, differing_shapes, quantised
from sskd.models.network import Network
from sskd.tensor_files import read_tensor_file, tensor_file

DEEPEST = 4  # dictionaries within one another, in a weights file

# What published checkpoints hold beside tensors. These classes carry values only; any other is refused.
_SAFE: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    # as NumPy before 2.0 spelled them, and so most published files
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),  # type: ignore[attr-defined]
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1")),
]


def read_containers(path: Path) -> Containers:
    """The tensors of a weights file (.safetensors, or a torch file), by the keys of the dictionaries they lie in.

    Pickled code is never run.

    Raises:
        UserError: no such file, a damaged one, one that holds code, or one without tensors.
    """
    if not path.is_file():
        raise UserError(f"There is no weights file {path}. Give a run directory or a .safetensors, .pth or .pt file.")
    if _is_torchscript(path):
        raise UserError(
            f"{path} is a TorchScript archive, which holds code. Save its weights alone, torch.save(torch.jit.load("
            "FILE).state_dict(), NEW), if you trust it, and say which architecture they are of."
        )
    try:
        if path.suffix == ".safetensors":
            content: Any = read_tensor_file(path)[1]
        else:
            with torch.serialization.safe_globals(_SAFE):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(_unreadable(path, error)) from error
    containers = dict(_containers(content, ()))
    if not containers:
        raise UserError(f"{path} holds no tensors under 'state_dict', 'model' or at its top. Save model.state_dict().")
    return containers


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _unreadable(path: Path, error: Exception) -> str:
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code and "quantized" in code[1]:
        return (
            f"{path} holds quantised layers ({code[1]}). Give the network's weights in floating point, from before "
            "they were quantised."
        )
    if code:
        return (
            f"{path} holds {code[1]}, which could only be loaded by running code, and so is refused. "
            "Save the plain state dict (torch.save(model.state_dict(), path), or safetensors) and give that."
        )
    text = "" if "weights_only" in str(error) else str(error)  # torch then advises to run the code in the file
    reason = text.split(". ", 1)[0].strip().split("\n", 1)[0] or "it ends too early, or holds more than tensors"
    return f"{path} is damaged or no weights file: {reason}. Copy or download it again."


def _containers(content: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], State]]:
    """Dictionaries that hold tensors, at any of a few depths; what is not named by text is an optimiser's."""
    if not isinstance(content, dict) or len(keys) > DEEPEST:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if state := {key: value for key, value in named.items() if isinstance(value, Tensor)}:
        yield keys, state
    for key, value in named.items():
        yield from _containers(value, (*keys, key))


def load_strictly(backbone: nn.Module, state: State, name: str) -> None:
    """Load weights; every key and shape must agree, but for the counters of batch norms, which may be absent.

    Raises:
        UserError: lists the keys that are missing, left over, or of another shape.
    """
    own = backbone.state_dict()
    absent = own.keys() - state.keys()
    lacking = any(not key.endswith(COUNTER) for key in absent)
    if lacking or state.keys() - own.keys() or differing_shapes(state, own) or quantised(state, own):
        raise UserError(difference(state, own, name, _side(backbone)))
    backbone.load_state_dict({**{key: own[key] for key in absent}, **state})


def _side(backbone: Any) -> int | None:
    """The side of the images that a transformer is built for, in pixels; None where it says none."""
    size = getattr(getattr(backbone, "patch_embed", backbone), "img_size", getattr(backbone, "image_size", None))
    side = size[-1] if isinstance(size, list | tuple) and size else size
    return side if isinstance(side, int) else None


def load_state(module: nn.Module, state: State, name: str) -> None:
    """Load a part of a run's own checkpoint.

    Raises:
        UserError: it was kept by a version of sskd that made this part in another way.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split(":", 1)[-1].split())
        reason = reason if len(reason) <= 200 else f"{reason[:197]}..."  # it lists every key
        raise UserError(
            f"The checkpoint's {name} is not made as this version of sskd makes it ({reason}). Use the version that "
            "began the run (config.json), or start anew with another --out."
        ) from error


def unshared(state: State) -> State:
    """Tensors that lie apart in memory: safetensors refuses one parameter under two names, and views of one storage."""
    seen, apart = set[int](), State()
    for key, value in state.items():
        storage = value.untyped_storage().data_ptr()
        apart[key] = value.contiguous().clone() if storage in seen else value.contiguous()
        seen.add(storage)
    return apart


def save_network(network: Network, state: State, folder: Path, image_shape: tuple[int, int, int]) -> None:
    """Write `model.safetensors` and `config.json`. `state` is the backbone's, at the epoch that is to be kept.

    Networks of the zoo and of timm come back with `timm.create_model("local-dir:FOLDER", pretrained=True)`, all with
    `load_folder`.
    """
    backbone: Any = network.backbone
    side = network.size or image_shape[-1]
    facts = {
        "input_size": [network.channels, side, side],
        "mean": list(network.normalisation.mean),
        "std": list(network.normalisation.std),
        "crop_pct": network.crop_pct,
    }
    make_folder(folder)
    draft = folder / ".config.json.draft"
    label_names = {"label_names": list(network.class_names), "written_by": f"sskd {__version__}"}
    if hasattr(backbone, "pretrained_cfg"):
        backbone.pretrained_cfg = {**backbone.pretrained_cfg, **facts}
        arguments = {"in_chans": network.channels, **network.arguments}
        with explained(draft):
            save_config_for_hf(
                backbone,
                draft,  # type: ignore[arg-type]  # timm declares a str; 1.0.26 needs a Path, 1.0.31 takes both
                model_config=label_names,
                model_args=arguments,
            )
        config = draft.read_bytes()
        draft.unlink()
    else:
        classes = len(network.class_names)
        described = {"architecture": network.architecture, "num_classes": classes, **label_names}
        config = json.dumps({**described, "pretrained_cfg": {**facts, "num_classes": classes}}, indent=2).encode()
    write_atomic(folder / "model.safetensors", tensor_file(unshared(state)))
    write_atomic(folder / "config.json", config)
