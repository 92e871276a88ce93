"""One variant in a process of its own, so that its memory can be told.

Between turns it waits for its pipe, and takes no processor time from the others.
"""

import ctypes
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import torch

from benchmarks.ours import refuse_uncaptured
from benchmarks.variants import Setting, Variant, build
from sskd.train.advance import WARM
from sskd.train.watch import synchronisations

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# Each process is forked from one that has imported everything and computed nothing: that takes no seconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["benchmarks.variants"])


class Worker:
    """A variant's process, seen from the benchmark.

    Raises:
        RuntimeError: the process ended; why, if it could still say it.
    """

    def __init__(self, variant: Variant, setting: Setting) -> None:
        self.name = variant.name
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=serve, args=(variant, setting, theirs))
        self._process.start()
        theirs.close()

    def built(self) -> dict[str, float]:
        """Once, before the first turn: seconds of the first step, memory before it. Waits for it."""
        return self._heard()

    def turn(self, untimed: int, steps: int) -> dict[str, float]:
        """Run so many steps: seconds per step, and the most memory that was held since the first step."""
        return self._heard((untimed, steps))

    def _heard(self, *asked: tuple[int, int]) -> dict[str, float]:
        try:
            for one in asked:
                self._pipe.send(one)
            found: dict[str, float] | str = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            raise RuntimeError(f"{self.name}: its process ended with {self._process.exitcode}") from error
        if isinstance(found, str):
            raise RuntimeError(f"{self.name}: {found}")
        return found

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join()


def serve(variant: Variant, setting: Setting, pipe: Connection) -> None:
    """Take turns until the pipe is closed; what goes wrong is said through it, too."""
    try:
        _serve(variant, setting, pipe)
    except Exception as error:
        pipe.send(" ".join(f"{type(error).__name__}: {error}".split())[:300])
        raise


def _serve(variant: Variant, setting: Setting, pipe: Connection) -> None:
    torch.set_num_threads(setting.threads)
    if setting.device.startswith("cuda"):
        torch.cuda.set_device(torch.device(setting.device).index or 0)  # whose memory is asked for
        torch.backends.cudnn.benchmark = True  # as the released code has it; the package too
    running = build(variant, setting)
    release()
    before = memory(setting.device)["now_mib"]
    running.prepare()
    took = seconds(running.step, 1, setting.device)
    waits = {}
    if setting.device.startswith("cuda"):
        seconds(running.step, WARM, setting.device)
        waits = {"waits": synchronisations(running.step)}
    refuse_uncaptured(running.step)
    running.stop()
    memory(setting.device, reset=True)  # what a compiler took is not the step's
    pipe.send({"first_s": took, "before_mib": before, **waits})
    while True:
        try:
            untimed, steps = pipe.recv()
        except EOFError:
            return
        running.prepare()
        seconds(running.step, untimed, setting.device)
        took = seconds(running.step, steps, setting.device)
        running.stop()
        pipe.send({"seconds": took, **memory(setting.device)})


def memory(device: str, reset: bool = False) -> dict[str, float]:
    """MiB held now, and at most since the last reset: of the GPU where it computes there, else of the process.

    Of a GPU also what tensors took of it at most.
    """
    if device.startswith("cuda"):
        if reset:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        # Reserved: what graphs use within themselves is allocated to nobody, but nobody else can have it.
        held = {"now_mib": torch.cuda.memory_reserved(), "peak_mib": torch.cuda.max_memory_reserved()}
        tensors = {"tensors_mib": torch.cuda.max_memory_allocated()}
        return {name: value / 2**20 for name, value in {**held, **tensors}.items()}
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    now, peak = (float(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    if reset:
        RESET.write_text("5")  # the peak starts anew from what is held now
    return {"now_mib": now, "peak_mib": peak}


def release() -> None:
    """Give the system back what malloc keeps of freed memory: a step that takes it again would seem to take nothing."""
    library = ctypes.CDLL(None)
    for name in ("MallocExtension_ReleaseFreeMemory", "malloc_trim"):  # tcmalloc's and glibc's
        if hasattr(library, name):
            getattr(library, name)(0)


def wait(device: str) -> None:
    """For the device to have done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(step: Callable[[], object], times: int, device: str) -> float:
    """Of one step, by the mean of some."""
    wait(device)
    began = time.perf_counter()
    for _ in range(times):
        step()
    wait(device)
    return (time.perf_counter() - began) / max(times, 1)
