"""What a person sees of a grid that runs."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from sskd.bench.grid import tasks_of
from sskd.bench.live import Watch
from sskd.bench.recipe import load_recipe
from sskd.bench.task import Outcome
from tests.benches import fake_run, write_recipe


def test_table_on_a_terminal_and_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sskd.bench.live.REFRESH", -1.0)
    recipe = load_recipe(str(write_recipe(tmp_path, seeds=[0, 1], methods={"kd": {}, "ce": {}})))
    tasks = tasks_of(recipe, tmp_path / "out")
    by_name = {task.name.rpartition("/")[2]: task for task in tasks}
    fake_run(tasks[0].folder, 0.9)
    running = by_name["kd-seed1"].folder
    running.mkdir(parents=True)
    (running / "config.json").write_text("{}")
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with Watch(tasks, console) as watch:
            (running / "log.jsonl").write_text('{"stage": "student", "epoch": 7}\n')
            watch.tick()
            done, failed = by_name["kd-seed0"], by_name["ce-seed0"]
            if not done.folder.exists():
                fake_run(done.folder, 0.5)
            watch.ended(Outcome(done, True))
            watch.ended(Outcome(failed, False, "no room"))
        assert watch.failed == {failed.name: "no room"}
        out = console.file.getvalue()  # type: ignore[attr-defined]
        assert "kd-seed0: 50.00 % (" in out and "ce-seed0: FAILED: no room" in out
        assert (("student 7" in out) and ("90.00" in out) and ("cifar_resnet8 -> cifar_resnet8" in out)) == terminal
    assert "finished, about" not in out, "no rate is known of what was there before"
