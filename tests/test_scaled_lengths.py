"""Stages whose length is scaled: what a run says and stores, and runs that the last release began."""

import json
from pathlib import Path
from typing import Any

import pytest

from sskd.bench.recipe import load_recipe
from sskd.cli.main import main
from tests.benches import write_recipe
from tests.conftest import Cli
from tests.interruption import assert_equal, assert_refused, outcome, stop_after, words_for


def options(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "config.json").read_text())["arguments"]["options"]
    return found


def change_options(run: Path, change: dict[str, Any], *, without: str = "") -> None:
    config = json.loads((run / "config.json").read_text())
    config["arguments"]["options"] |= change
    config["arguments"]["options"].pop(without, None)
    (run / "config.json").write_text(json.dumps(config))


def test_a_head_is_as_long_as_the_students_schedule_asks(distil: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = distil("--epochs", "6", "--out", run)
    assert done.code == 0, done
    note = "head_epochs: 2 epochs, the published 60 of 240 beside the student's 6 (--options.head_epochs N for another"
    assert note in " ".join(done.out.split())
    assert (run / "log.jsonl").read_text().count('"stage": "head"') == 2 == options(run)["head_epochs"]
    assert "is finished already" in distil("--epochs", "6", "--out", run).out
    assert "is finished already" in distil("--epochs", "6", "--options.head_epochs", "2", "--out", run).out
    refused = distil("--epochs", "6", "--options.head_epochs", "3", "--out", run)
    assert_refused(refused, "options.head_epochs: 2 there, 3 now")


def test_a_run_of_the_last_release_goes_on_as_it_was(
    few: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sskd: Cli
) -> None:
    """Its config says how long the head trains: what was the default then, whatever the student's epochs."""
    given, left_out = ("--epochs", "2", "--options.head_epochs", "3"), ("--epochs", "2")
    assert main(words_for(few, teacher, tmp_path / "whole" / "run", *given)) == 0
    for writes in (1, 4):
        run = tmp_path / str(writes) / "run"
        stop_after(monkeypatch, lambda run=run: main(words_for(few, teacher, run, *given)), writes)  # type: ignore[misc]
        assert options(run)["head_epochs"] == 3, "as the last release had it without being asked"
        assert_refused(sskd(*words_for(few, teacher, run, *left_out, "--options.head_epochs", "1")), "3 there, 1 now")
        resumed = sskd(*words_for(few, teacher, run, *left_out))
        assert resumed.code == 0 and "head_epochs:" not in resumed.out, resumed
        assert_equal(outcome(run), outcome(tmp_path / "whole" / "run"))


def test_one_of_the_last_release_goes_on_without_a_ramp(distil: Cli, tmp_path: Path) -> None:
    run, words = tmp_path / "run", ("--method", "one", "--epochs", "1")
    assert distil(*words, "--options.ramp_up", "0", "--out", run).code == 0
    change_options(run, {}, without="ramp_up")
    assert "is finished already" in distil(*words, "--out", run).out
    assert_refused(distil(*words, "--options.ramp_up", "1", "--out", run), "options.ramp_up: 0 there, 1 now")


def test_hsakd_of_the_last_release_is_told_apart(distil: Cli, tmp_path: Path) -> None:
    run, words = tmp_path / "run", ("--method", "hsakd", "--epochs", "1")
    assert distil(*words, "--out", run).code == 0
    assert options(run)["branch_epochs"] == 1 and options(run)["nesterov"] is True
    change_options(run, {"branch_epochs": 100}, without="nesterov")
    assert_refused(distil(*words, "--out", run), "(arguments: options.nesterov: False there, True now)")


def test_a_method_without_type_hints(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bench's recipe and in a run."""
    (tmp_path / "untyped.py").write_text(
        "from sskd.methods import METHODS\n"
        "def plan(pair, *, epochs, optim, weight=0.9, **more):\n"
        "    return METHODS['kd'](pair, epochs=epochs, optim=optim, kd_weight=weight, **more)\n"
        "def other(pair, *, epochs, optim): return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    given = {"weight": 1, "temperature": 2}
    recipe = load_recipe(str(write_recipe(tmp_path, methods={"mine": {"method": "untyped:plan", **given}})))
    assert recipe.options_of("mine", recipe.pairs[0]) == given
    words = ("--options.weight", "1", "--options.temperature", "2", "--epochs", "1", "--out", tmp_path / "run")
    assert distil("--method", "untyped:plan", *words).code == 0
    assert options(tmp_path / "run") == given
    refused = distil("--method", "untyped:other", "--epochs", "1", "--out", tmp_path / "no")
    assert_refused(refused, "The method untyped:other returned a int; a method returns a sskd.methods.plan.Plan.")
