"""What a training would take, from short samples of its decoding and of its steps."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.photographs import write_folders, write_shards
from sskd.cli.check import _lengths
from sskd.data.feed import Cut
from sskd.jobs.check import StageCost
from sskd.jobs.cost import PATIENCE, WARM, Decoding, Hours, Stepping, _rate, hours, stepping
from sskd.train.trial import Timed
from tests.conftest import Cli

QUICK = ("--threads", "1", "--batch_size", "4", "--validation", "0", "--size", "32", "--precision", "fp32")


def decoded(training: float, evaluation: float, when: str = "workers") -> Decoding:
    return Decoding(when, training, evaluation, 4, 224, 8, 64)  # type: ignore[arg-type]


def test_a_gpu_waits_for_the_slower_and_a_cpu_for_both() -> None:
    """10 steps of 1 s with 100 images each, decoded at 50/s; 30 images of evaluation at 0.1 s, decoded at 5/s."""
    step, length = Stepping(1.0, 0.1, 100), (1000, 100, 30, 6, 2)
    unknown = hours(step, decoded(50, 5), 1000, 100, None, 6, 2, "cuda:0")
    assert unknown.evaluation is None and 3600 * unknown.whole == pytest.approx(6 * 20)
    gpu, cpu = (hours(step, decoded(50, 5), *length, device) for device in ("cuda:0", "cpu"))
    assert gpu.evaluation and cpu.evaluation
    assert [3600 * gpu.epoch, 3600 * gpu.evaluation] == pytest.approx([20, 6]) and gpu.bound == "decoding"
    assert [3600 * cpu.epoch, 3600 * cpu.evaluation] == pytest.approx([30, 9])
    assert 3600 * gpu.whole == pytest.approx(6 * 20 + 3 * 6)
    fast = hours(step, decoded(500, 50), *length, "cuda")
    assert 3600 * fast.epoch == pytest.approx(10) and fast.bound == "step"
    for nothing in (None, decoded(50, 5, "once")):
        assert 3600 * hours(step, nothing, *length, "cpu").epoch == pytest.approx(10)


def stage(name: str, epochs: int, each: float) -> StageCost:
    """Of so many epochs, each of so many hours."""
    taken = Hours(each, 0.0, epochs * each, "step")
    return StageCost(name, epochs, 64, 1, 10, {}, {}, name == "head", None, None, taken)


def test_a_head_that_takes_longer_than_the_student_is_said() -> None:
    checked: Any = SimpleNamespace(stages={"sskd": [stage("head", 60, 0.1), stage("student", 30, 0.02)]})
    assert _lengths(checked, 2.0) == [
        "sskd: head 60 epochs (once for each teacher), 6.0 h; student 30 epochs, 36.0 min; 6.6 h in all, for 13.20.",
        "91% of the time is head's: with --options.head_epochs 6 it takes as long as student.",
    ]
    checked = SimpleNamespace(stages={"sskd": [stage("head", 8, 0.02), stage("student", 30, 0.02)], "kd": []})
    assert _lengths(checked, None) == [
        "sskd: head 8 epochs (once for each teacher), 9.6 min; student 30 epochs, 36.0 min; 45.6 min in all."
    ]


def test_decoding_is_counted_once_it_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 2: a slow start is left out, unless there is nothing after it."""
    now, none = [0.0], torch.empty(0)

    def batches(count: int) -> Iterator[Cut]:
        for i in range(count):
            now[0] += 100.0 if i == 0 else 0.5
            yield Cut(none, torch.zeros(2), none, none)

    monkeypatch.setattr("sskd.jobs.cost.time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert _rate(batches(WARM + 3)) == (4.0, 6)
    slow, counted = _rate(batches(WARM))
    assert counted == 2 * WARM and slow == pytest.approx(2 * WARM / (100 + 0.5 * (WARM - 1)))


def test_long_steps_are_sampled() -> None:
    asked: list[tuple[int, bool]] = []

    def seconds(each: float, room: int) -> Stepping:
        def step(images: int, evaluating: bool) -> Timed:
            asked.append((images, evaluating))
            if images > room:
                raise RuntimeError("CUDA out of memory. Tried to allocate")
            return Timed(images * each, 0.0, "" if evaluating else "it waits")

        asked.clear()
        return stepping(step, 256)

    def near(found: Stepping, expected: tuple[float, float, int]) -> bool:
        return (found.seconds, found.evaluation, found.sample) == pytest.approx(expected)

    assert near(seconds(0.001, 256), (0.256, 0.001, 256)) and seconds(0.001, 256).refused == "it waits"
    assert asked == [(4, False), (256, False), (256, True)]
    sampled = int(PATIENCE / 0.1)
    assert near(seconds(0.1, 256), (25.6, 0.1, sampled)) and sampled < 256
    assert near(seconds(10.0, 256), (2560, 10, 4))
    assert seconds(0.001, 100).sample == 64, "halves, until there is room"
    with pytest.raises(RuntimeError, match="out of memory"):
        seconds(0.001, 2)


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_a_dry_run(kind: str, sskd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On photographs of realistic size, with a price."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sskd.jobs.cost.SAMPLE", 0.1)
    if kind == "folder":
        write_folders(tmp_path / "data", 24, 4, 2)
    else:
        write_shards(tmp_path / "data", 24, 4, 2, 10)
    words = ("--student", "cifar_resnet8", "--data", tmp_path / "data", "--method", "ce", "--epochs", "2")
    done = sskd("check", *words, *QUICK, "--decode", "workers", "--workers", "0", "--price", "3600")
    assert done.code == 0, done.err
    row = next(line for line in done.out.splitlines() if "│ce" in line and " ms" in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert cells[1] == "train" and cells[5] in ("step", "decoding")
    rate, step, whole = (float(cells[i].split()[0].replace(",", "")) for i in (4, 3, 8))
    cost = float(cells[9])
    assert rate > 1 and step > 1 and cells[8].endswith(" s") and cost == pytest.approx(whole, abs=0.06)
    assert cost > 2 * 24 * (1 / rate + 1 / step) * 0.9, "on the CPU the two take turns"
    assert "images/s with 1 crop of 32 pixels of each image" in done.out
    assert "The step and the decoding share the cores" in done.out
    once = sskd("check", *words, *QUICK, "--workers", "0")
    assert "The photographs fit in memory and are decoded once" in once.out and "cost" not in once.out
