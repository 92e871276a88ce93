"""What an epoch is to be free of: compilations, after the first one, and waits of the host for the GPU."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from sskd.train.step import Execution


@contextmanager
def watching(execution: Execution) -> Iterator[dict[str, int]]:
    """Afterwards what is yielded holds the number of `compilations`, of compiled steps, and of `waits`, on a GPU."""
    found, before = dict[str, int](), compilations()
    if execution.device.startswith("cuda"):
        with waits() as times:
            yield found
        found["waits"] = len(times)
    else:
        yield found
    if execution.compiled:
        found["compilations"] = compilations() - before


def compilations() -> int:
    """How many graphs this process has compiled so far."""
    if "torch._dynamo" not in sys.modules:  # whose import takes seconds
        return 0
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


@contextmanager
def waits() -> Iterator[list[str]]:
    """Afterwards what is yielded holds torch's words for each time that the host has waited for the GPU."""
    found, mode = list[str](), torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    for one in caught:
        if "called a synchronizing" in str(one.message):
            found.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def synchronisations(work: Callable[[], object]) -> int:
    """How often the host waits for the GPU while it does this."""
    with waits() as found:
        work()
    return len(found)
