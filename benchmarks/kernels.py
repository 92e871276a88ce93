"""Kernels that PyTorch is slow at on a CPU, beside the paths that `sskd.train.detours` takes around them.

`python -m benchmarks.kernels --help`. Each pair of ways has the same values, and is timed in turns.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn

from benchmarks.lines import markdown
from benchmarks.results import RESULTS, Results, quartiles
from benchmarks.tables import kernels_table
from benchmarks.variants import has_bf16
from sskd.train.detours import with_fp32_gradients

Way = Callable[[], object]


def images(count: int, channels: int, side: int, dtype: torch.dtype) -> Tensor:
    """Random maps, channels last."""
    return torch.randn(count, channels, side, side).to(dtype, memory_format=torch.channels_last)


def norm_ways(count: int, channels: int, side: int, dtype: torch.dtype) -> dict[str, Way]:
    """The backward pass of a batch norm that gets its gradient from a concatenation."""
    given, norm = images(count, channels, side, dtype).requires_grad_(), nn.BatchNorm2d(channels)
    out, sliced = norm(given), images(count, 2 * channels, side, dtype)[:, :channels]

    def backward(gradient: Tensor) -> object:
        return torch.autograd.grad(out, (given, norm.weight, norm.bias), gradient, retain_graph=True)

    return {
        "a slice, as it comes": lambda: backward(sliced),
        "copied first": lambda: backward(sliced.contiguous(memory_format=torch.channels_last)),
    }


def depthwise_ways(count: int, channels: int, side: int, kernel: int, stride: int) -> dict[str, Way]:
    """Forward and backward pass of a depthwise convolution between bf16 maps."""
    given = images(count, channels, side, torch.bfloat16).requires_grad_()
    convolution = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    convolution.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        gradient = torch.randn_like(convolution(given))

    def in_bf16() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            out = convolution(given)
        return torch.autograd.grad(out, (given, convolution.weight), gradient)

    def in_fp32() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            out = with_fp32_gradients(convolution, given)
        return torch.autograd.grad(out, (given, convolution.weight), gradient)

    return {"in bf16": in_bf16, "gradients in fp32": in_fp32}


def timed(ways: dict[str, Way], rounds: int) -> dict[str, Any]:
    """Milliseconds of each way, quartiles, and how many times as long the first takes as the second, by round."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):  # the first is the warm-up
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn:
                found[name].append(1000 * (time.perf_counter() - began))
    first, second = found.values()
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    return {"ms": {name: quartiles(values) for name, values in found.items()}, "times": quartiles(ratios)}


def main(rounds: int = 9, count: int = 256, threads: int | None = None, out: Path | None = None) -> dict[str, Any]:
    """Time the slow kernels and the ways around them, on this CPU.

    Args:
        rounds: turns that are timed.
        count: maps in a batch.
        threads: of torch; what torch chooses where it is not given.
        out: the JSON file; results/kernels-cpu.json of this repository where it is not given.
    """
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    settings = {"rounds": rounds, "count": count, "threads": threads}
    results = Results(out or RESULTS / "kernels-cpu.json", "kernels", settings)
    cases: dict[str, Callable[[], dict[str, Way]]] = {
        "batch norm of 216 x 16 x 16, fp32, backward": lambda: norm_ways(count, 216, 16, torch.float32)
    }
    if has_bf16("cpu"):
        cases |= {
            "batch norm of 216 x 16 x 16, bf16, backward": lambda: norm_ways(count, 216, 16, torch.bfloat16),
            "depthwise 3 x 3, stride 2, on 54 x 32 x 32": lambda: depthwise_ways(count, 54, 32, 3, 2),
            "depthwise 5 x 5, stride 2, on 54 x 32 x 32": lambda: depthwise_ways(count, 54, 32, 5, 2),
            "depthwise 5 x 5, stride 1, on 54 x 32 x 32": lambda: depthwise_ways(count, 54, 32, 5, 1),
            "depthwise 3 x 3, stride 1, on 54 x 32 x 32 (left in bf16)": lambda: depthwise_ways(count, 54, 32, 3, 1),
        }
    for name, ways in cases.items():
        if name not in results:
            results.keep(name, timed(ways(), rounds))
    print("\n\n".join(markdown(table) for table in kernels_table(results.values)))
    return results.values


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
