"""Counts where a program reads values from the device. For tests."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

OPERATIONS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal)
FUNCTIONS = (Tensor.tolist, Tensor.cpu, Tensor.numpy)  # on the CPU they are no operations


class Reads(TorchDispatchMode):
    """Within it `count` goes up at each read, which on a GPU waits for all that was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._functions = _Functions(self)

    def __enter__(self) -> "Reads":
        self._functions.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._functions.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in OPERATIONS
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads.count += func in FUNCTIONS
        return func(*args, **(kwargs or {}))
