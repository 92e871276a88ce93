"""Runs a function of a test module in several processes that meet over gloo, as torchrun would start them."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import start_processes

from sskd.train.distributed import leave


def together(work: Callable[..., Any], count: int, folder: Path, *arguments: Any) -> list[Any]:
    """What `work(*arguments)` returns in each process, through files of tensors and plain values."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(_begin, (count, port, folder, work, arguments), count, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _begin(rank: int, count: int, port: int, folder: Path, work: Callable[..., Any], arguments: Any) -> None:
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}
    os.environ |= {name: str(value) for name, value in address.items()}
    try:
        torch.save(work(*arguments), folder / f"{rank}.pt")
    finally:
        leave()
