"""One hash for what a run keeps and reads back: tensors and plain values."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def content_hash(content: Any) -> str:
    """SHA-256 over tensors (type, shape, values) and plain values, nested in dictionaries, lists and tuples.

    It depends neither on the order of a dictionary's keys nor on the device or the memory layout of a tensor.

    Example:
        >>> content_hash({"a": 1, "b": torch.zeros(2)}) == content_hash({"b": torch.zeros(2), "a": 1})
        True
    """
    digest = hashlib.sha256()
    _add(content, digest)
    return digest.hexdigest()


def _add(content: Any, digest: Any) -> None:
    if isinstance(content, Tensor):
        values = content.detach().cpu().contiguous()
        digest.update(f"tensor {values.dtype} {tuple(values.shape)};".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(content, Mapping):
        digest.update(f"dict {len(content)};".encode())
        for key in sorted(content, key=lambda key: (type(key).__name__, repr(key))):
            _add(key, digest)
            _add(content[key], digest)
    elif isinstance(content, list | tuple):
        digest.update(f"{'list' if isinstance(content, list) else 'tuple'} {len(content)};".encode())
        for value in content:
            _add(value, digest)
    else:  # numbers, text, None; what else torch loads without running code (a dtype, a device) has a plain repr too
        text = repr(content).encode(errors="surrogatepass")
        digest.update(f"{type(content).__name__} {len(text)};".encode() + text)
