"""What arithmetic on large trainings starts from, measured on the machine at hand: `docs/scale.md` reckons with it.

`python -m benchmarks.constants --help`. Each figure is the best of some rounds. On a CPU products and copies count
seconds of one core's time, as decoding does everywhere, so that other work on the machine counts for little; what a GPU
does, checkpoints and messages count seconds of the clock. Rates are what a user's code gets (PIL, torch, gloo, NCCL),
not what hardware could. What a machine does not have is skipped, and the JSON says why.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jsonargparse import auto_cli
from torch.multiprocessing.spawn import start_processes
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.lines import markdown
from benchmarks.ours import Ours, random_data, refuse_uncaptured
from benchmarks.photographs import photographs
from benchmarks.results import RESULTS, Results
from benchmarks.tables import constants_table
from benchmarks.variants import FROZEN_RATE, usual
from benchmarks.worker import CONTEXT, seconds, wait
from sskd.data.crops import Resized
from sskd.data.decode import open_image
from sskd.data.decoded import random_crops
from sskd.memory import sent
from sskd.train.advance import WARM
from sskd.train.checkpoint import save_checkpoint

ROUNDS = 3
MIB = 2**20


def rate(work: Callable[[], float], least: float, clock: Callable[[], float] = time.process_time) -> float:
    """Units of work a second: the best of rounds of at least so many seconds."""
    work()
    rounds = []
    for _ in range(ROUNDS):
        done, began = 0.0, clock()
        while (passed := clock() - began) < least:
            done += work()
        rounds.append(done / passed)
    return max(rounds)


def clock_of(device: str) -> Callable[[], float]:
    """A core's own time, or, once a GPU has done what it was given, that of the clock."""

    def finished() -> float:
        wait(device)
        return time.perf_counter()

    return finished if device.startswith("cuda") else time.process_time


def decoding(least: float) -> dict[str, float]:
    """Photographs of ImageNet's usual size: decoded, and with 1 or 4 crops of 224 pixels; per core."""
    encoded, crops, generator = [content for content, _ in photographs(16, 2, 0)], Resized(224), torch.Generator()
    found = {"bytes_per_photograph": statistics.fmean(map(len, encoded))}

    def decode(count: int) -> Callable[[], float]:
        def work() -> float:
            for content in encoded:
                image = open_image(content)
                if count:
                    random_crops(image, crops, count, 3, generator)
            return len(encoded)

        return work

    return found | {f"decoded_{count}_crops_per_s": rate(decode(count), least) for count in (0, 1, 4)}


def products(device: str, side: int, copied: int, least: float) -> dict[str, float]:
    """Matrix products, 10^9 floating-point operations a second; and bytes copied."""
    found, clock = {}, clock_of(device)
    for dtype in (torch.float32, torch.bfloat16):
        one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))

        def work(one: torch.Tensor = one, other: torch.Tensor = other) -> float:
            one @ other
            return 2 * side**3 / 1e9

        found[f"matmul_{str(dtype).removeprefix('torch.')}_gflops"] = rate(work, least, clock)
    source, target = torch.rand(copied, device=device), torch.empty(copied, device=device)

    def copy() -> float:
        target.copy_(source)
        return source.nbytes / 1e9

    return found | {"copy_gb_per_s": rate(copy, least, clock)}


def transfers(device: str, least: float) -> dict[str, Any]:
    """Bytes of a batch's crops on their way to the device, by way of page-locked memory as in a run."""
    if not device.startswith("cuda"):
        return {"skipped": "the CPU computes where the images are"}
    crops, place = torch.zeros(38 * MIB, dtype=torch.uint8), torch.device(device)  # 64 x 4 crops of 224 pixels

    def send() -> float:
        sent(crops, place)
        return crops.nbytes / 1e9

    return {"to_the_device_gb_per_s": rate(send, least, clock_of(device))}


def checkpoints(device: str, least: float) -> dict[str, float]:
    """A checkpoint of 100 MB, made and flushed to the disk as a run does it."""
    state = {"weights": torch.rand(25_000_000, device=device)}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:

        def write() -> float:
            save_checkpoint(Path(folder) / "checkpoint.pt", state)
            return state["weights"].nbytes / 1e6

        return {"checkpoint_mb_per_s": rate(write, least, time.perf_counter)}


def _reduce(rank: int, folder: str, size: int, device: str) -> None:
    torch.set_num_threads(1)
    place = torch.device("cuda", rank) if device.startswith("cuda") else torch.device("cpu")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = "nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    found = {}
    for name, numbers in (("large", 12_000_000), ("small", 256)):
        values, timed = torch.rand(numbers, device=place), []
        for _ in range(3 * ROUNDS):
            dist.barrier()
            timed.append(seconds(partial(dist.all_reduce, values), 1, str(place)))
        found[name] = min(timed)
        found[f"{name}_bytes"] = float(values.nbytes)
    if rank == 0:
        Path(folder, "reduced.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def messages(device: str) -> dict[str, Any]:
    """The all-reduce between processes of this machine: bytes of the message a second, and a small one's time.

    Of two processes over gloo, or of all GPUs over NCCL.
    """
    size = torch.cuda.device_count() if device.startswith("cuda") else 2
    if size < 2:
        return {"skipped": "NCCL's all-reduce needs several GPUs; here is one"}
    with tempfile.TemporaryDirectory() as folder:
        start_processes(_reduce, (folder, size, device), size, start_method=CONTEXT.get_start_method())
        found = json.loads(Path(folder, "reduced.json").read_text())
    return {
        "all_reduce_processes": size,
        "all_reduce_gb_per_s": found["large_bytes"] / found["large"] / 1e9,
        "all_reduce_small_ms": 1000 * found["small"],
    }


def training(pair: str, side: int, batch_size: int, steps: int, device: str, threads: int) -> dict[str, float]:
    """A step of SSKD, with what it computes: on a GPU as one CUDA graph, not compiled."""
    teacher, student = pair.split(":")
    data, info = random_data(2 * batch_size, 1000, side)
    execution = usual(device, threads)
    step = Ours(teacher, student, data, info, batch_size, execution, FROZEN_RATE)
    with FlopCounterMode(display=False) as counted:
        step()
    if execution.captured:
        for _ in range(WARM):
            step()
        refuse_uncaptured(step)
    took = min(seconds(step, steps, device) for _ in range(ROUNDS))
    operations = counted.get_total_flops()
    return {
        "step_ms": 1000 * took,
        "images_per_s": batch_size / took,
        "gflop_per_image": operations / batch_size / 1e9,
        "tflop_per_s": operations / took / 1e12,
    }


def main(
    pair: str = "resnet34:resnet18",
    sides: tuple[int, ...] = (128, 224),
    batch_size: int = 4,
    steps: int = 1,
    product: int = 1024,
    copied: int = 32 * MIB,
    least: float = 0.5,
    device: str = "cpu",
    threads: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure the constants and write them as JSON.

    Args:
        pair: TEACHER:STUDENT of the step, networks of the zoo or of timm.
        sides: of the step's images, in pixels.
        batch_size: images per step; each becomes four views.
        steps: timed steps of each round.
        product: the side of the matrices that are multiplied; 8192 for a GPU.
        copied: numbers (fp32) that are copied.
        least: seconds of a round of all but steps and messages.
        device: cpu, cuda, cuda:1...
        threads: of torch, for all but messages; one where it is not given, so that rates are a core's.
        out: the JSON file; results/constants-DEVICE.json of this repository where it is not given.
    """
    threads, before = threads or 1, torch.get_num_threads()
    settings = {"pair": pair, "sides": list(sides), "batch_size": batch_size, "steps": steps, "product": product}
    settings |= {"copied": copied, "least": least, "device": device, "threads": threads}
    results = Results(out or RESULTS / f"constants-{device.partition(':')[0]}.json", "constants", settings)
    measured: dict[str, Callable[[], dict[str, Any]]] = {
        "decoding": partial(decoding, least),
        "products": partial(products, device, product, copied, least),
        "transfers": partial(transfers, device, least),
        "checkpoints": partial(checkpoints, device, least),
        "messages": partial(messages, device),
    }
    for side in sides:
        measured[f"{pair} at {side}"] = partial(training, pair, side, batch_size, steps, device, threads)
    torch.set_num_threads(threads)
    try:
        for part, measure in measured.items():
            if part not in results or "skipped" in results.parts[part]:  # the machine may have more GPUs now
                results.keep(part, measure())
    finally:
        torch.set_num_threads(before)
    print("\n\n".join(markdown(table) for table in constants_table(results.values)))
    return results.values


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
