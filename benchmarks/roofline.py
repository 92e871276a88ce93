"""How near a training step comes to the machine's limits, and what holds the rest.

`python -m benchmarks.roofline --help`. Bytes and FLOPs of every operation of one eager step are counted; the machine's
rates are measured, by copying and by multiplying matrices. An operation cannot take less than the larger of its FLOPs
at the matmul rate and its bytes at the copy rate; these bounds, added up by kind, stand beside what the profiler saw.
What stays in caches can beat its bound, since the copy rate is the main memory's.
"""

import itertools
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.lines import markdown
from benchmarks.ours import Ours, random_data, refuse_uncaptured
from benchmarks.results import RESULTS, Results, quartiles
from benchmarks.tables import roofline_table
from benchmarks.variants import FROZEN_RATE, has_bf16
from benchmarks.worker import seconds, wait
from sskd.train.advance import WARM
from sskd.train.step import Execution, Precision

KINDS = {"conv": "convolutions", "batch_norm": "batch norms", "mm": "linear layers and similarity"}
REST = "the rest: ReLUs, sums, casts, losses, optimiser, views"
REPLAYS, LISTED = 20, 15  # steps of each round of a replayed step; kernels that are named
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def kind_of(operation: str) -> str:
    """The kind that an operation of this name belongs to."""
    return next((kind for part, kind in KINDS.items() if part in operation), REST)


class Counting(TorchDispatchMode):
    """Adds up what operations cost at least, by kind."""

    def __init__(self, matmul: float, copy: float) -> None:
        super().__init__()
        self.matmul, self.copy = matmul, copy  # per second
        self.found: dict[str, dict[str, float]] = defaultdict(lambda: {"flops": 0.0, "bytes": 0.0, "bound_ms": 0.0})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it, and count."""
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        inputs, outputs = ([v for v in tree_leaves(x) if isinstance(v, Tensor)] for x in ((args, kwargs), out))
        stores = {value.untyped_storage().data_ptr() for value in inputs}
        view = outputs and not name.endswith("_") and all(v.untyped_storage().data_ptr() in stores for v in outputs)
        if view or "empty" in name:
            return out
        count = flop_registry.get(func.overloadpacket)
        flops = float(count(*args, **(kwargs or {}), out_val=out)) if count else 0.0
        moved = float(sum(value.numel() * value.element_size() for value in [*inputs, *outputs]))
        row = self.found[kind_of(name)]
        row["flops"] += flops
        row["bytes"] += moved
        row["bound_ms"] += 1000 * max(flops / self.matmul, moved / self.copy)
        return out


def matmul_rate(device: str, dtype: torch.dtype, side: int) -> float:
    """FLOP/s of the product of two square matrices, the best of five."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / min(_times(lambda: a @ b, device))


def copy_rate(device: str, size: int) -> float:
    """Bytes read and written per second when a large tensor is copied, the best of five."""
    source = torch.randn(size, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(_times(lambda: target.copy_(source), device))


def _times(call: Any, device: str) -> list[float]:
    for _ in range(2):
        call()
    found = []
    for _ in range(5):
        wait(device)
        began = time.perf_counter()
        call()
        wait(device)
        found.append(time.perf_counter() - began)
    return found


def profiled(step: Ours, device: str, steps: int) -> dict[str, float]:
    """Milliseconds per step that the profiler saw, by kind: of the GPU's kernels, or of the CPU's operations."""
    on_gpu = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        for _ in range(steps):
            step()
        wait(device)
    found: dict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if not (on_gpu and str(event.device_type).endswith("CUDA")):  # a kernel's time counts for its operation already
            found[kind_of(event.key)] += spent / 1000 / steps
    return dict(found)


def replayed(pair: tuple[str, str], execution: Execution, batch_size: int, rounds: int) -> dict[str, Any]:
    """The same step compiled and replayed as one CUDA graph: its time, and for how much of it the GPU computes.

    Raises:
        RuntimeError: the graph was refused.
    """
    data, info = random_data(1024, 100)
    step = Ours(*pair, data, info, batch_size, replace(execution, compiled=True, captured=True), FROZEN_RATE)
    for _ in range(WARM + 1):
        step()
    refuse_uncaptured(step)
    times = quartiles([1000 * seconds(step, REPLAYS, execution.device) for _ in range(rounds)])
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(REPLAYS):
            step()
        wait(execution.device)
    kernels = [event for event in seen.key_averages() if str(event.device_type).endswith("CUDA")]
    slowest = sorted(kernels, key=lambda event: -event.self_device_time_total)[:LISTED]
    return {
        "ms_per_step": times,
        "kernels_ms": sum(event.self_device_time_total for event in kernels) / 1000 / REPLAYS,
        "slowest_ms": {event.key: event.self_device_time_total / 1000 / REPLAYS for event in slowest},
    }


def analysed(pair: tuple[str, str], execution: Execution, batch_size: int, rounds: int, rates: dict[str, float]) -> Any:
    """One pair of networks under one precision."""
    data, info = random_data(1024, 100)
    device = execution.device
    step = Ours(*pair, data, info, batch_size, execution, FROZEN_RATE)
    for _ in range(2):
        step()
    with Counting(rates[f"matmul_{execution.precision}"], rates["copy"]) as counting:
        step()
    times = quartiles([1000 * seconds(step, 1, device) for _ in range(rounds)])
    seen = profiled(step, device, max(1, rounds // 2))
    kinds = {kind: {**row, "profiled_ms": seen.get(kind, 0.0)} for kind, row in counting.found.items()}
    bound = sum(row["bound_ms"] for row in kinds.values())
    flops = sum(row["flops"] for row in kinds.values())
    # What a GPU's step is run as: eager, it waits for the host. Compiling takes a minute, so for the best precision.
    graphs = device.startswith("cuda") and execution.precision == "bf16"
    return {
        **({"replayed": replayed(pair, execution, batch_size, rounds)} if graphs else {}),
        "ms_per_step": times,
        "bound_ms": bound,
        "share": bound / times[1],
        "flops": flops,
        "share_of_matmul": 1000 * flops / rates[f"matmul_{execution.precision}"] / times[1],
        "kinds": kinds,
    }


def main(
    pairs: tuple[str, ...] = ("cifar_wrn_40_2:cifar_wrn_16_2",),
    batch_size: int = 64,
    rounds: int = 5,
    side: int = 2048,
    copied: int = 1 << 26,
    device: str = "cpu",
    threads: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Count and measure one step of each pair in fp32 and, where the device has it, bf16.

    Args:
        pairs: TEACHER:STUDENT, networks of the zoo or of timm.
        batch_size: images per step; each becomes four views.
        rounds: steps that are timed.
        side: of the matrices that are multiplied; 8192 for a GPU.
        copied: numbers (fp32) that are copied.
        device: cpu, cuda, cuda:1...
        threads: of torch; what torch chooses where it is not given.
        out: the JSON file; results/roofline-DEVICE.json of this repository where it is not given.
    """
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    settings = {"pairs": list(pairs), "batch_size": batch_size, "rounds": rounds, "side": side, "copied": copied}
    settings |= {"device": device, "threads": threads}
    results = Results(out or RESULTS / f"roofline-{device.partition(':')[0]}.json", "roofline", settings)
    precisions: list[Precision] = ["fp32", "bf16"] if has_bf16(device) else ["fp32"]
    if "rates" not in results:
        rates = {f"matmul_{name}": matmul_rate(device, DTYPES[name], side) for name in precisions}
        results.keep("rates", {**rates, "copy": copy_rate(device, copied)})
    plain = Execution(device, channels_last=True, folded=True, threads=threads)
    for pair, precision in itertools.product(pairs, precisions):
        if (part := f"{pair}, {precision}") not in results:
            teacher, student = pair.split(":")
            execution, rates = replace(plain, precision=precision), results.parts["rates"]
            results.keep(part, analysed((teacher, student), execution, batch_size, rounds, rates))
    print("\n\n".join(markdown(table) for table in roofline_table(results.values)))
    return results.values


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
