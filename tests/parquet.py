"""Small parquet data sets. For tests."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CIFAR100 = Path(__file__).parents[1].parent / "shared" / "data" / "cifar100"


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image: np.ndarray | Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def features(**columns: Sequence[str] | None) -> dict[bytes, bytes]:
    """The metadata that the datasets library writes: None is an image, a list names classes."""
    typed = {
        name: {"_type": "Image"} if names is None else {"_type": "ClassLabel", "names": list(names)}
        for name, names in columns.items()
    }
    return {b"huggingface": json.dumps({"info": {"features": typed}}).encode()}


def write(file: Path, columns: dict[str, Any], metadata: dict[bytes, bytes] | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)


def structs(images: Sequence[bytes | None]) -> pa.Array:
    rows = [{"bytes": data, "path": None} for data in images]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def colours(seed: int, count: int = 4, side: int = 6) -> list[bytes]:
    return [encode(image) for image in pixels(seed, count, side, side, 3)]


def write_both(folder: Path, **change: Any) -> Path:
    """A sound folder of 4 + 4 images of 2 classes, with the changed test columns."""
    write(folder / "train.parquet", {"image": colours(0), "label": [0, 1, 0, 1]})
    write(folder / "test.parquet", {"image": colours(1), "label": [0, 1, 1, 0], **change})
    return folder
