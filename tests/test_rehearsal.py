"""What is measured on a GPU by `benchmarks/gpu.sh` is rehearsed on the CPU, at a tiny size."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from benchmarks import constants, everything, inside, many, roofline, whole, worker
from benchmarks.many import together
from benchmarks.member import Task
from benchmarks.step import measure
from benchmarks.tables import TABLES
from benchmarks.variants import ALONE, PEER, WITH_INPUT, Running, Setting, Variant, has_bf16, usual
from sskd.train.step import Execution

PLACE = Path(__file__).parents[1]
SMALL = "cifar_resnet8"


def check_step(written: dict[str, Any]) -> None:
    """Every variant is there, and its figures agree with each other."""
    assert written["command"].startswith("python -m benchmarks.step --pairs '[\"cifar_resnet8:cifar_resnet8\"]' ")
    assert {"python", "torch", "timm", "sskd", "processor", "platform"} <= written.keys()
    bf16 = [f"ours, bf16 channels_last{end}" for end in ("", " folded")] if has_bf16("cpu") else []
    fp32 = [f"ours, fp32 {end}" for end in ("contiguous", "channels_last", "channels_last folded")]
    found = written["parts"]["cifar_resnet8:cifar_resnet8"]
    assert list(found) == [ALONE, WITH_INPUT, *fp32, *bf16]
    for row in found.values():
        low, median, high = row["ms_per_step"]
        assert 0 < low <= median <= high and len(row["rounds_s"]) == 1 and row["first_s"] > 0
        assert median == pytest.approx(1000 * row["rounds_s"][0])
        assert row["images_per_s"] == pytest.approx(4000 / median)
        assert row["peak_mib"] >= row["before_mib"] > 0
        for key, reference in (("times_alone", ALONE), ("times_with_input", WITH_INPUT)):
            assert row[key][1] == pytest.approx(found[reference]["ms_per_step"][1] / median)


def test_what_fails_or_is_cut_off_does_not_end_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole pipeline that is stopped, even before the student began, is not called measured."""

    def fail(**given: Any) -> None:
        raise SystemExit("measured with other settings")

    def stopped(**given: Any) -> dict[str, Any]:
        done.append("whole")
        return {"parts": {"pipeline": {"finished": False, "stages": {"student": {"epochs": 0}}}}}

    done, given = list[str](), {"device": "cpu", "tiny": True}
    monkeypatch.setattr(whole, "main", stopped)
    rest = [name for name in everything.PARTS if name not in ("whole", "roofline")]
    mains = {name: (lambda name=name, **given: done.append(name)) for name in rest}
    monkeypatch.setattr(everything, "MAINS", {**mains, "roofline": fail})
    with pytest.raises(SystemExit, match="not finished: whole, roofline"):
        everything.main(tmp_path, data="few", **given)  # type: ignore[arg-type]
    assert done == [name for name in everything.PARTS if name != "roofline"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="sees no GPU here"):
        everything.main(tmp_path)


def members(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = list[int]()
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        found += [int(place.parent.name)] if int(fields[3]) == session and fields[0] != "Z" else []
    return found


def parts_of(file: Path) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads(file.read_text())["parts"] if file.exists() else {}
    return parts


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the command's processes are found in /proc")
def test_the_gpus_measurements_are_rehearsed(tmp_path: Path, few: Path) -> None:
    """All parts by the command, which is killed in the middle of one: what was measured is not measured again."""
    command = ["bash", str(PLACE / "benchmarks" / "gpu.sh"), str(tmp_path), "--data", str(few)]
    command += ["--device", "cpu", "--threads", "1", "--tiny", "true"]
    environment = {**os.environ, "PYTHON": sys.executable, "LIMIT": "3600"}
    with (tmp_path / "log").open("w") as log:
        begun = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    while not parts_of(tmp_path / "growth.json") and begun.poll() is None:
        time.sleep(0.05)
    while there := members(begun.pid):
        for process in there:
            os.kill(process, signal.SIGKILL)
        begun.wait()
    before = {path.name: parts_of(path) for path in tmp_path.glob("*.json")}
    assert before.keys() == {f"{part}.json" for part in everything.PARTS[:8]}, (tmp_path / "log").read_text()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "all is measured" in ended.stdout
    reports = {part: json.loads((tmp_path / f"{part}.json").read_text()) for part in everything.PARTS}
    for part, report in reports.items():
        assert report["parts"].items() >= before.get(f"{part}.json", {}).items()
        tables = TABLES[report["benchmark"]](report)
        assert tables and all(len(row) == len(table.head) for table in tables for row in table.rows)
        assert report["commits"].keys() == report["parts"].keys()
    assert 0 < len(before["growth.json"]) < len(reports["growth"]["parts"])
    check({part: report["parts"] for part, report in reports.items()})
    check_step(reports["step"])


def check(found: dict[str, Any]) -> None:
    """That each part has measured what it was to."""
    pair = f"{SMALL}:{SMALL}"
    assert found["growth"]["losses, width"]["sizes"] == [8, 16]
    assert len(found["growth"]["step, batch_size"]["step_mib"]) == 1
    assert all(row["images_per_s"][1] > 0 for name, row in found["pipeline"].items() if "ms" not in name)
    kinds = found["roofline"][f"{pair}, fp32"]["kinds"]
    assert kinds["convolutions"]["flops"] > 0.9 * sum(row["flops"] for row in kinds.values())
    ran = found["whole"]["pipeline"]
    assert ran["finished"] and [row["epochs"] for row in ran["stages"].values()] == [1, 1]
    assert ran["projected_seconds"] > 0
    assert list(found["memory"][f"{pair}:48"]) == ["as it is", "recompute", "micro_batch 2", "micro_batch 2, recompute"]
    assert all(row["peak_mib"] > 0 for row in found["memory"][f"{pair}:48"].values())
    for row in found["imagenet"][pair].values():
        assert row["hours_per_epoch"] == pytest.approx(1000 / row["images_per_s"] / 3600)
    assert set(found["pairs"][pair]) == {ALONE, *([PEER] if find_spec("torchdistill") else [])}
    constants = found["constants"]
    assert constants["messages"]["all_reduce_processes"] == 2 and "skipped" in constants["transfers"]
    assert constants[f"{pair} at 32"]["gflop_per_image"] > 0.1
    assert list(found["many"]) == ["one process", "2 processes, global", "2 processes, per_device"]
    assert all(row["images_per_s"] > 0 for row in found["many"].values())


class Pipe:
    """The worker's end: the benchmark asks for some turns, and then no more."""

    def __init__(self, *asked: tuple[int, int]) -> None:
        self.asked, self.sent = list(asked), list[Any]()

    def send(self, value: Any) -> None:
        self.sent.append(value)

    def recv(self) -> tuple[int, int]:
        if not self.asked:
            raise EOFError
        return self.asked.pop(0)


class Refused:
    """A step of which no graph could be made."""

    advance = SimpleNamespace(refused="the host waits for the GPU")

    def __init__(self, *given: Any) -> None:
        pass

    def __call__(self) -> None:
        pass


def test_a_refused_graph_is_not_measured_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    setting, pipe = Setting(SMALL, SMALL, threads=torch.get_num_threads()), Pipe((0, 1))
    monkeypatch.setattr(worker, "build", lambda *given: Running(Refused()))
    with pytest.raises(RuntimeError, match="no CUDA graph is made of the step: the host waits for the GPU"):
        worker.serve(Variant("ours", "ours"), setting, cast(Any, pipe))
    assert pipe.sent == ["RuntimeError: no CUDA graph is made of the step: the host waits for the GPU"]
    monkeypatch.setattr(roofline, "Ours", Refused)
    with pytest.raises(RuntimeError, match="no CUDA graph is made of the step: the host waits for the GPU"):
        roofline.replayed((SMALL, SMALL), Execution(), 4, 1)


def test_what_ends_a_variants_process_is_told() -> None:
    broken = measure([Variant(ALONE, "alone")], Setting(SMALL, "no_such_network", 4, 16, 4), 1, 0, 1)
    assert "UserError: There is no model named" in broken[ALONE]["failed"]
    with worker.Worker(Variant(ALONE, "alone"), Setting(SMALL, SMALL, 4, 16, 4)) as lost:
        lost.built()
        lost._process.kill()
        with pytest.raises(RuntimeError, match="its process ended with -9"):
            lost.turn(0, 1)


def test_compiled_steps_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that is quick, since it does nothing: what is asked of it is a variant and views in its graph."""
    compiler, threads = torch.compile, torch.get_num_threads()
    monkeypatch.setattr(torch, "compile", lambda step, mode=None, **given: compiler(step, **given, backend="eager"))
    torch.compiler.reset()
    pipe = Pipe((0, 1))
    variant = Variant("ours", "ours", usual("cpu", threads, compiled=True))
    worker.serve(variant, Setting(SMALL, SMALL, 4, 16, 4, threads=threads), cast(Any, pipe))
    assert pipe.sent[0]["first_s"] > pipe.sent[1]["seconds"] > 0
    found = inside.inside_and_outside((SMALL, SMALL), "cpu", threads, 4, 0, 1)
    assert all(ms[1] > 0 for ms in found.values()) and len(found) == 2


def test_one_gpu_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs several is skipped, and measured where there are several."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    out = tmp_path / "many.json"
    report = many.main(device="cuda", out=out)
    assert report["parts"] == {"skipped": "this needs several GPUs; here is one"}
    assert "here is one" in constants.messages("cuda")["skipped"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    made = {"ms_per_step": [1.0, 1.0, 1.0], "peak_mib": 1.0}

    def together_at_once(task: Task, processes: int) -> dict[str, Any]:
        return {one: {**made, "images_per_s": 64.0 * processes} for one in task.relations}

    monkeypatch.setattr(many, "together", together_at_once)
    report = many.main(device="cuda", out=out)
    assert list(report["parts"]) == ["one process", "4 processes, global", "4 processes, per_device"]
    assert [row[3] for row in TABLES["many"](report)[0].rows] == ["1.00", "4.00", "4.00"]
    monkeypatch.setattr(subprocess, "run", lambda command, cwd: SimpleNamespace(returncode=1))
    with pytest.raises(RuntimeError, match="of 2 processes one failed, and the command ended with 1"):
        together(Task(SMALL, SMALL, 4, 16, 4, 32, ["global"], False, 1, 1, "cpu", 1, str(out)), 2)


class Endless:
    """A run that does not end by itself."""

    def __init__(self, command: list[str]) -> None:
        self.killed = False

    def poll(self) -> None:
        pass

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> None:
        assert self.killed


def test_the_whole_pipeline_is_stopped_when_there_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", Endless)
    monkeypatch.setattr(whole, "LOOK", 0.0)
    asked = iter([False, True])
    assert not whole.run([], 60.0, lambda: next(asked)) and not list(asked)
    assert not whole.run([], 0.0)
    line = {"stage": "student", "seconds": 2.0, "evaluation_seconds": 1.0}
    (tmp_path / "log.jsonl").write_text(2 * f"{json.dumps(line)}\n" + json.dumps(line)[:20])
    found = whole.told(tmp_path, {"student": 10})
    assert found["stages"]["student"]["epochs"] == 2 and found["projected_seconds"] == 30.0
    assert [whole.measured(found, run) for run in (None, 2, 3)] == [False, True, False]
    assert whole.measured({**found, "finished": True}, None)
