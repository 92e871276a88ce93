"""Safetensors files that say what they hold: a hash of their tensors and metadata is part of them."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from sskd.content_hash import content_hash

HASH = "sskd_sha256"  # its key in the metadata


def tensor_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = {}) -> bytes:
    """The content of a safetensors file. Whoever else reads it (timm, transformers) passes the hash by."""
    whole = {key: value.cpu().contiguous() for key, value in tensors.items()}
    return bytes(save(whole, {**metadata, HASH: content_hash([dict(metadata), whole])}))


def read_tensor_file(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file; those of others, and of the first releases, have no hash.

    Raises:
        ValueError: it does not hold what was written.
        SafetensorError, OSError: it cannot be read.
    """
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no dictionary
    written = metadata.pop(HASH, None)
    if written is not None and written != content_hash([metadata, tensors]):
        raise ValueError("it does not hold what was written (SHA-256)")
    return metadata, tensors
