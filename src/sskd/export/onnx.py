"""A network as one ONNX file."""

import io
import json
import math
import statistics
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sskd.data.prepare import PHOTOGRAPH
from sskd.environment import processor
from sskd.errors import UserError
from sskd.files import make_folder, write_atomic
from sskd.models.load import WEIGHTS, Brought, Facts, load_network
from sskd.models.network import Network
from sskd.models.soundness import warn_of_probabilities
from sskd.ranges import need_bool, refuse_empty
from sskd.train.protocols import Record

LARGEST = 2**31 - 2**20  # bytes: a protocol buffer ends at 2 GiB
BATCHES = (1, 3)  # on which the file is compared with torch
NEAR = 1e-3  # of the largest logit: what fused and reordered float32 arithmetic may differ by, with a margin
TIMED = 20  # runs on one image, of which the median is told


def export(network: str, out: str, trust_code: bool = False) -> Record:
    """Write a network as one ONNX file, after comparing what it computes in ONNX Runtime with torch.

    The file takes images in [0, 1] and normalises them for itself; its metadata says how they are cut and names the
    classes. Batches may be of any size.

    Args:
        network: a run directory, a folder as timm writes it, hf-hub:OWNER/NAME, or weights that timm or torchvision
            has.
        out: the file, NAME.onnx.
        trust_code: run the function that the folder names as its architecture (package.module:function), if it names
            one; it is refused otherwise.

    Returns:
        The file, its size, what it takes and gives, the largest difference from torch, milliseconds for one image here,
        what is worth saying of the network.

    Raises:
        UserError: ONNX is not installed, no network there, one that ONNX cannot express, a result that differs.
    """
    refuse_empty(network=network, out=out)
    need_bool("trust_code", trust_code)
    runtime = _installed()
    if Path(network).is_file() or Path(network).suffix in WEIGHTS:
        raise UserError(
            f"{network} holds weights alone. Make a run of it, which says classes and normalisation: sskd teacher "
            f"--init {network} --model NAME --data DATA --epochs 0 --out RUN; then export RUN."
        )
    loaded = load_network(Brought(network), Facts((), 3, None), trust_code).float().eval()
    side = loaded.size or PHOTOGRAPH
    notes = [*loaded.notes, *warn_of_probabilities(loaded, network, (loaded.channels, side, side))]
    content = _written(loaded, side)
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = _compared(loaded, session, side)
    path = Path(out)
    make_folder(path.parent)
    write_atomic(path, content)
    return {
        "file": str(path),
        "bytes": len(content),
        "parameters": sum(p.numel() for p in loaded.backbone.parameters()),
        "input": f"images, float32 [batch, {loaded.channels}, {side}, {side}], from 0 to 1",
        "cut": _cut(loaded, side),
        "output": f"logits, float32 [batch, {len(loaded.class_names)}]",
        "difference": f"{difference:.1e} of the largest logit, from torch",
        "time": f"{_milliseconds(session, loaded, side):.2f} ms for one image (ONNX Runtime, {processor()})",
        "notes": notes,
    }


def _installed() -> Any:
    try:
        for name in ("onnx", "onnxscript"):  # which torch writes it with
            import_module(name)
        return import_module("onnxruntime")
    except ImportError as error:
        raise UserError(f"{error.name} is not installed, and export needs it: pip install 'sskd[export]'.") from error


def _images(count: int, network: Network, side: int) -> Float[Tensor, "count C side side"]:
    return torch.rand(count, network.channels, side, side, generator=torch.Generator().manual_seed(count))


def _written(network: Network, side: int) -> bytes:
    """The file's bytes.

    Raises:
        UserError: ONNX cannot express the network, or a file of its size.
    """
    if sum(value.nbytes for value in network.state_dict().values()) > LARGEST:
        raise UserError(
            f"{network.title} is larger than the 2 GiB that one ONNX file can hold. Export a smaller network."
        )
    aside = io.StringIO()  # where it fails, torch prints pages
    try:
        with redirect_stdout(aside), redirect_stderr(aside):
            program: Any = torch.onnx.export(
                network,
                (_images(2, network, side),),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            )
    except Exception as error:  # whatever a network can do that the exporter does not know
        while error.__cause__ is not None:
            error = error.__cause__  # type: ignore[assignment]
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"{network.title} cannot be written as ONNX for batches of any size: {reason}. timm and torch still run it."
        ) from error
    model = program.model_proto
    for key, value in _facts(network, side).items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


def _facts(network: Network, side: int) -> Mapping[str, str]:
    """What whoever runs the file has to know: it is kept in the file's metadata."""
    return {
        "classes": json.dumps(network.class_names),
        "side": str(side),
        "reduced": str(round(side / network.crop_pct)),
        "architecture": network.architecture,
        "images": "channels first, from 0 to 1; the middle square, resized to `reduced`, and of it the middle `side`",
    }


def _cut(network: Network, side: int) -> str:
    """How `sskd predict` cuts an image for it."""
    reduced = round(side / network.crop_pct)
    whole = f"the middle square, resized to {reduced}x{reduced}"
    return whole if reduced == side else f"{whole}, and of it the middle {side}x{side}"


@torch.no_grad()
def _compared(network: Network, session: Any, side: int) -> float:
    """The largest difference from torch's logits, as a share of the largest logit.

    Raises:
        UserError: it is more than rounding.
    """
    worst = torch.zeros(())
    for count in BATCHES:
        images = _images(count, network, side)
        expected, logits = network(images), torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        off = (logits - expected).abs().max() / expected.abs().max()
        worst = torch.maximum(worst, off if logits.shape == expected.shape else torch.tensor(math.inf))
    if not worst <= NEAR:  # NaN is not
        raise UserError(
            f"{network.title} as ONNX gives other logits than torch: they differ by {worst:.1e} of the largest, and at "
            f"most {NEAR:g} would be rounding. No file was written. Is it finite, and the same each time?"
        )
    return worst.item()


def _milliseconds(session: Any, network: Network, side: int) -> float:
    given, timed = {"images": _images(1, network, side).numpy()}, list[float]()
    for _ in range(TIMED + 3):
        began = time.perf_counter()
        session.run(None, given)
        timed.append(time.perf_counter() - began)
    return 1000 * statistics.median(timed[3:])
