"""Networks on disk: safetensors directories that timm loads, and published checkpoints, without running code."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.files import explained, make_folder, write_atomic
from sskd.models.network import Network

State = dict[str, Tensor]

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


def read_state(path: Path) -> State:
    """The tensors of a weights file (.safetensors, or a torch file), under the backbone's own names.

    {"state_dict": ...}, {"model": ...} and bare dictionaries are understood, and the prefixes `module.` and
    `backbone.`; of a file with `backbone.` names the rest (a self-supervision head) is left out. Pickled code is
    never run.

    Raises:
        UserError: no such file, a damaged one, one that holds code, or one without tensors.
    """
    if not path.is_file():
        raise UserError(f"There is no weights file {path}. Give a run directory or a .safetensors, .pth or .pt file.")
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            with torch.serialization.safe_globals(_SAFE):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UserError(
                f"{path} holds {code[1]}, which could only be loaded by running code, and so is refused. "
                "Save the plain state dict (torch.save(model.state_dict(), path), or safetensors) and give that."
            ) from error
        reason = str(error).split(". ", 1)[0].strip().split("\n", 1)[0] or "it ends too early"
        raise UserError(f"{path} is damaged or no weights file: {reason}. Copy or download it again.") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not state:
        raise UserError(f"{path} holds no tensors under 'state_dict', 'model' or at its top. Save model.state_dict().")
    return _strip(state)


def _strip(state: State) -> State:
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    if any(key.startswith("backbone.") for key in state):
        state = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    return state


def load_strictly(backbone: nn.Module, state: State, name: str) -> None:
    """Load weights; every key and shape must agree.

    Raises:
        UserError: lists the keys that are missing, left over, or of another shape.
    """
    own = backbone.state_dict()
    # Published MobileNetV2 files spell their classifier in two ways.
    state = {key if key in own else key.replace("classifier.0.", "classifier."): value for key, value in state.items()}
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key} is {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the network"
        for key in sorted(own.keys() & state.keys())
        if own[key].shape != state[key].shape
    ]
    problems = [
        f"{title}: {', '.join(keys[:5])}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}"
        for title, keys in (("missing", missing), ("left over", extra), ("of another shape", shapes))
        if keys
    ]
    if problems:
        raise UserError(f"These weights are not of {name}. Keys {'; '.join(problems)}. Name the right architecture.")
    backbone.load_state_dict(state)


def load_state(module: nn.Module, state: State, name: str) -> None:
    """Load a part of a run's own checkpoint.

    Raises:
        UserError: it was kept by a version of sskd that made this part in another way.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split(":", 1)[-1].split())
        raise UserError(
            f"The checkpoint's {name} is not made as this version of sskd makes it ({reason}). Use the version that "
            "began the run (config.json), or start anew with another --out."
        ) from error


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
    label_names = {"label_names": list(network.class_names)}
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
    tensors = {key: value.contiguous() for key, value in state.items()}
    write_atomic(folder / "model.safetensors", safetensors.torch.save(tensors))
    write_atomic(folder / "config.json", config)
