"""How long one SSKD training step takes, and how much memory: as published, torchdistill's way, and ours.

`python -m benchmarks.step --help`. Each variant is a process of its own, so that its memory can be told. They take
turns, in an order that is turned round every time, so that whatever else the machine does meets all of them. Ours
always makes its views in the step; the published way is measured without its input pipeline, which favours it, and with
it. A pair of networks that is in the output file already is not measured again.
"""

import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from rich.console import Console

from benchmarks.lines import markdown
from benchmarks.results import RESULTS, Results, quartiles
from benchmarks.tables import step_table
from benchmarks.variants import ALONE, PEER, WITH_INPUT, Setting, Variant, compared, has_bf16
from benchmarks.worker import Worker

PAIRS = (
    "cifar_wrn_40_2:cifar_wrn_16_2",
    "cifar_resnet56:cifar_resnet20",
    "cifar_resnet32x4:cifar_resnet8x4",
    "cifar_wrn_40_2:cifar_shufflenet_v1",
)


def measure(
    found: list[Variant], setting: Setting, rounds: int, untimed: int, steps: int, epoch: int | None = None
) -> dict[str, Any]:
    """Seconds and memory of each variant: all start, then they take turns. `epoch`: images, to tell its hours.

    A variant that cannot be run, as where a compiler is missing, says so in the result and is left out.
    """
    console, values = Console(stderr=True), dict[str, Any]()
    with ExitStack() as stack:
        workers, started = list[Worker](), (stack.enter_context(Worker(variant, setting)) for variant in found)
        # One after the other on a CPU, all at once on a GPU: there a start is the host's work, and it has many cores.
        for worker in list(started) if setting.device.startswith("cuda") else started:
            try:
                built = worker.built()
            except RuntimeError as error:
                values[worker.name] = {"failed": str(error)}
                console.print(f"{error}", style="red")
                continue
            workers.append(worker)
            values[worker.name] = {**built, "rounds_s": [], "peak_mib": 0.0}
            console.print(f"{worker.name}: first step {built['first_s']:.1f} s", style="dim")
        for done in range(rounds):
            for worker in workers if done % 2 == 0 else reversed(workers):
                turn, row = worker.turn(untimed, steps), values[worker.name]
                row["rounds_s"].append(turn["seconds"])
                for name in ("peak_mib", "tensors_mib"):
                    row |= {name: max(row.get(name, 0.0), turn[name])} if name in turn else {}
            told = ", ".join(f"{worker.name} {1000 * values[worker.name]['rounds_s'][-1]:.1f}" for worker in workers)
            console.print(f"round {done + 1} of {rounds}, ms: {told}", style="dim")
    return summary(values, setting.batch_size, epoch)


def summary(values: dict[str, Any], batch_size: int, epoch: int | None) -> dict[str, Any]:
    """Per variant its times and memory, and how many times as fast as each reference it is, within each round."""
    for row in values.values():
        if "failed" in row:
            continue
        times = quartiles(row["rounds_s"])
        row |= {"ms_per_step": [1000 * value for value in times], "images_per_s": batch_size / times[1]}
        row |= {"step_mib": row["peak_mib"] - row["before_mib"]}
        row |= {"hours_per_epoch": epoch / row["images_per_s"] / 3600} if epoch else {}
        for key, name in (("times_alone", ALONE), ("times_with_input", WITH_INPUT), ("times_peer", PEER)):
            reference = values.get(name, {})
            if "rounds_s" not in reference:
                continue
            pairs = zip(reference["rounds_s"], row["rounds_s"], strict=True)
            row[key] = quartiles([theirs / ours for theirs, ours in pairs])
            # On a shared machine a neighbour can spoil most rounds of one variant; the best ones stay comparable.
            row[f"best_{key}"] = min(reference["rounds_s"]) / min(row["rounds_s"])
    if "step_mib" in (reference := values.get(WITH_INPUT, {})):
        for row in values.values():
            if "step_mib" in row:
                row["memory_share"] = row["step_mib"] / max(reference["step_mib"], 1.0)
    return values


def main(
    pairs: tuple[str, ...] = PAIRS,
    batch_size: int = 64,
    rounds: int = 5,
    untimed: int = 0,
    steps: int = 1,
    device: str = "cpu",
    threads: int | None = None,
    workers: int = 0,
    compiled: bool = False,
    peer: bool = True,
    only: tuple[str, ...] | None = None,
    images: int = 50_000,
    classes: int = 100,
    side: int = 32,
    epoch: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Time the SSKD training step, as published and ours, and write the result as JSON.

    Args:
        pairs: TEACHER:STUDENT, networks of the zoo or of timm.
        batch_size: images per step; each becomes four views.
        rounds: how often every variant has its turn; medians and quartiles are over these.
        untimed: steps of each turn before the clock starts. A GPU's clock needs some; a CPU's steps are long.
        steps: timed steps per turn.
        device: cpu, cuda, cuda:1...
        threads: of torch; what torch chooses where it is not given.
        workers: processes of the published input pipeline and of torchdistill's; 0 makes the views in the training
            process. Workers run ahead of the clock by two batches each, so give `steps` well above that.
        compiled: measure ours compiled as well.
        peer: measure torchdistill, where it is installed.
        only: names of the variants to measure, as the tables have them; all where it is not given.
        images: size of the data set of random images.
        classes: number of classes.
        side: of an image, in pixels.
        epoch: images of an epoch whose hours are to be told.
        out: the JSON file; results/step-DEVICE.json of this repository where it is not given.
    """
    threads = threads or torch.get_num_threads()
    settings = {
        "pairs": list(pairs),
        "batch_size": batch_size,
        "rounds": rounds,
        "untimed": untimed,
        "steps": steps,
        "device": device,
        "threads": threads,
        "workers": workers,
        "compiled": compiled,
        "peer": peer,
        "only": only and list(only),
        "images": images,
        "classes": classes,
        "side": side,
        "epoch": epoch,
    }
    results = Results(out or RESULTS / f"step-{device.partition(':')[0]}.json", "step", settings)
    results.values["bf16_instructions"] = has_bf16(device)
    for pair in pairs:
        if pair not in results:
            teacher, student = pair.split(":")
            setting = Setting(
                teacher, student, batch_size, images, classes, device, threads, side=side, workers=workers
            )
            variants = compared(setting, compiled, peer and find_spec("torchdistill") is not None)
            variants = [one for one in variants if only is None or one.name in only]
            measured = measure(variants, setting, rounds, untimed, steps, epoch)
            if all("failed" in row for row in measured.values()):  # not kept: it is tried again by the next call
                sys.exit(f"{pair}: every variant failed; {next(iter(measured.values()))['failed']}")
            results.keep(pair, measured)
    print("\n\n".join(markdown(table) for table in step_table(results.values)))
    return results.values


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
