"""What arithmetic on large trainings starts from, measured on the machine at hand: `docs/scale.md` reckons with it.

`python -m benchmarks.constants --out results/constants-cpu.json`. Each figure is the best of some rounds. Decoding,
products and copies count seconds of one core's time, so that other work on the machine counts for little; checkpoints
and messages count seconds of the clock. Rates are what a user's code gets (PIL, torch, gloo), not what hardware could.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.photographs import photographs
from sskd.data.crops import Resized
from sskd.data.decode import open_image
from sskd.data.decoded import random_crops
from sskd.environment import environment
from sskd.files import save_checkpoint, write_json

ROUNDS, SECONDS = 3, 0.5
MIB = 2**20


def rate(work: Callable[[], float], clock: Callable[[], float] = time.process_time) -> float:
    """Units of work a second: the best of rounds of at least `SECONDS`."""
    work()
    rounds = []
    for _ in range(ROUNDS):
        done, began = 0.0, clock()
        while (passed := clock() - began) < SECONDS:
            done += work()
        rounds.append(done / passed)
    return max(rounds)


def decoding() -> dict[str, float]:
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

    return found | {f"decoded_{count}_crops_per_s": rate(decode(count)) for count in (0, 1, 4)}


def products(side: int = 1024) -> dict[str, float]:
    """Matrix products, 10^9 floating-point operations a second; and bytes copied."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        one, other = (torch.rand(side, side).to(dtype) for _ in range(2))

        def work(one: torch.Tensor = one, other: torch.Tensor = other) -> float:
            one @ other
            return 2 * side**3 / 1e9

        found[f"matmul_{str(dtype).removeprefix('torch.')}_gflops"] = rate(work)
    source, target = torch.rand(32 * MIB), torch.empty(32 * MIB)

    def copy() -> float:
        target.copy_(source)
        return source.nbytes / 1e9

    return found | {"copy_gb_per_s": rate(copy)}


def checkpoints(folder: Path) -> dict[str, float]:
    """A checkpoint of 100 MB, made and flushed to the disk as a run does it."""
    state = {"weights": torch.rand(25_000_000)}

    def write() -> float:
        save_checkpoint(folder / "checkpoint.pt", state)
        return state["weights"].nbytes / 1e6

    return {"checkpoint_mb_per_s": rate(write, time.perf_counter)}


def _reduce(rank: int, folder: str, size: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    found = {}
    for name, numbers in (("large", 12_000_000), ("small", 256)):
        values, timed = torch.rand(numbers), []
        for _ in range(3 * ROUNDS):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(values)
            timed.append(time.perf_counter() - began)
        found[name] = min(timed)
        found[f"{name}_bytes"] = float(values.nbytes)
    if rank == 0:
        Path(folder, "reduced.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def messages(size: int = 2) -> dict[str, float]:
    """gloo's all-reduce between processes of this machine: bytes of the message a second, and a small one's time."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_reduce, (folder, size), size)  # type: ignore[attr-defined, no-untyped-call]
        found = json.loads(Path(folder, "reduced.json").read_text())
    return {
        "all_reduce_processes": size,
        "all_reduce_gb_per_s": found["large_bytes"] / found["large"] / 1e9,
        "all_reduce_small_ms": 1000 * found["small"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="a JSON file to write")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        found = {**decoding(), **products(), **checkpoints(Path(folder)), **messages()}
    for name, value in found.items():
        print(f"{name:>26}  {value:,.4g}")
    if given.out:
        write_json(given.out, {"constants": found, "environment": environment()})


if __name__ == "__main__":
    main()
