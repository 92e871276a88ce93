"""Where an analysis is kept, beside its run, and what stands at its head."""

import io
import time
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from sskd.environment import environment
from sskd.files import make_folder, write_atomic, write_json

THUMBNAIL = 96  # pixels, the longest side; smaller images stay as they are


def made_by() -> dict[str, Any]:
    """The command, the versions and the time."""
    facts = environment()
    versions = {name: facts[name] for name in ("sskd", "python", "torch", "torchvision", "timm", "numpy")}
    return {"command": facts["command"], "versions": versions, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def keep(run: Path, name: str, found: dict[str, Any], thumbnails: dict[str, UInt8[Tensor, "C H W"]]) -> Path:
    """Write `RUN/analyses/NAME.json` and the thumbnails, by their paths from there; earlier ones of the name go.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    folder = run / "analyses"
    make_folder(folder / name if thumbnails else folder)
    for path, pixels in thumbnails.items():
        write_atomic(folder / path, jpeg(pixels))
    write_json(folder / f"{name}.json", found)
    for file in (folder / name).glob("*.jpg"):
        if f"{name}/{file.name}" not in thumbnails:
            file.unlink()
    return folder / f"{name}.json"


def jpeg(pixels: UInt8[Tensor, "C H W"]) -> bytes:
    """A small JPEG; without loss of colour resolution, which small images cannot spare."""
    array = pixels.cpu().permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=92, subsampling=0, optimize=True)
    return buffer.getvalue()
