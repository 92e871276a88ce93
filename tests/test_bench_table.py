"""The table of a grid, from run directories made by hand."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel

from sskd.bench.grid import tasks_of
from sskd.bench.published import published
from sskd.bench.recipe import load_recipe
from sskd.bench.results import compare, mean_and_deviation, read_cell, read_costs, rows_of
from sskd.bench.table import as_csv, as_json, as_markdown, tabulated, write
from tests.benches import fake_run, write_recipe

LAST = {"ce": (0.70, 0.71, 0.69), "kd": (0.72, 0.725, 0.71), "sskd": (0.76, 0.75, 0.755)}
PAIR = {"teacher": "wrn_40_2", "student": "wrn_16_2"}


@pytest.fixture
def grid(tmp_path: Path) -> tuple[Any, list[Any]]:
    """Three methods on one pair of the paper; AT has one seed of three, and SP none."""
    methods = {"ce": {}, "kd": {}, "sskd": {}, "at": {"kd_weight": 1}, "sp": {}}
    recipe = load_recipe(str(write_recipe(tmp_path, pairs=[PAIR], methods=methods, seeds=[0, 1, 2])))
    tasks = tasks_of(recipe, tmp_path / "out")
    for task in tasks:
        label, seed = task.facts.get("label"), task.facts["seed"]
        if task.kind == "teacher":
            fake_run(task.folder, 0.8)
        elif label in LAST:
            fake_run(task.folder, LAST[label][seed], LAST[label][seed] + 0.01)
        elif label == "at" and seed == 0:
            fake_run(task.folder, 0.73, None, loss={"ce": 1.0, "kd": 1.0, "at": 1000.0})
    return recipe, [read_cell(task) for task in tasks]


def test_rows(grid: tuple[Any, list[Any]]) -> None:
    _, cells = grid
    lines = {line["label"]: line for line in tabulated(cells, {})}
    assert [*lines] == ["teacher", "ce", "kd", "sskd", "at", "sp"]
    sskd, at, sp = lines["sskd"], lines["at"], lines["sp"]
    assert sskd["last_mean"] == pytest.approx(75.5) and sskd["last_deviation"] == pytest.approx(0.5)
    assert sskd["best_mean"] == pytest.approx(76.5)
    assert sskd["vs_kd"] == pytest.approx(75.5 - (72 + 72.5 + 71) / 3)
    assert sskd["vs_kd_p"] == pytest.approx(ttest_rel(LAST["sskd"], LAST["kd"]).pvalue)
    assert sskd["vs_kd_mark"] == "*" and sskd["vs_best"] is None
    assert lines["kd"]["vs_kd"] is None and lines["kd"]["vs_best"] == pytest.approx(-sskd["vs_kd"])
    assert (at["n"], at["of"], at["last_deviation"], at["vs_kd_p"]) == (1, 3, None, None)
    assert at["vs_kd"] == pytest.approx(1.0), "paired: seed 0 against seed 0"
    assert (at["kd_weight"], sskd["kd_weight"], sp["kd_weight"]) == (1.0, 0.0, None)
    assert (sp["n"], sp["last_mean"]) == (0, None)
    assert (sskd["published"], at["published"], lines["teacher"]["published"]) == (76.04, 75.28, 76.46)
    assert (sskd["cpu_seconds"], sskd["seconds"], sskd["peak_mib"]) == (5.0, 10.0, 900)
    assert sskd["stage_seconds"] == {"head": 3.0}
    assert lines["teacher"]["last_mean"] == pytest.approx(80)


def test_other_options_have_no_published_number(tmp_path: Path) -> None:
    """And where a GPU computes, the seconds are the clock's."""
    methods = {"kd": {}, "kd-ls": {"method": "kd", "standardised": True}}
    recipe = load_recipe(str(write_recipe(tmp_path, pairs=[PAIR], methods=methods)))
    tasks = tasks_of(recipe, tmp_path / "out")
    for task in tasks:
        fake_run(task.folder, 0.7)
        config = json.loads((task.folder / "config.json").read_text())
        (task.folder / "config.json").write_text(json.dumps({**config, "execution": {"device": "cuda:0"}}))
    cells = [read_cell(task) for task in tasks]
    lines = {line["label"]: line for line in tabulated(cells, {})}
    assert (lines["kd"]["published"], lines["kd-ls"]["published"]) == (74.92, None)
    assert [
        (one["cpu_seconds"], one["unit"], one["stage_seconds"]) for name, one in lines.items() if name != "teacher"
    ] == [(10.0, "GPU s", {"head": 4.0})] * 2
    assert "| GPU s | stages before, s |" in as_markdown(recipe, [*lines.values()], cells)


def test_markdown_says_what_is_there_and_what_failed(grid: tuple[Any, list[Any]]) -> None:
    recipe, cells = grid
    failed = {cell.task.name: "no | room" for cell in cells if cell.facts.get("label") == "sp"}
    text = as_markdown(recipe, tabulated(cells, failed), cells)
    rows = {cells_[1].strip(): [one.strip() for one in cells_] for line in text.splitlines()
            if len(cells_ := line.split("|")) > 5}  # fmt: skip
    assert rows["sskd"][2:9] == ["no", "3", "75.50 ± 0.50", "76.50 ± 0.50", "+3.67*", "", "76.04"]
    assert rows["at"][2:5] == ["x 1", "1 of 3", "73.00"]
    assert rows["sp"][4:6] == ["no \\", "room"], "escaped"
    assert "49,000 training, 1,000 validation and 10,000 test images" in text
    assert "Published: 240 epochs" in text


def test_csv_and_json_hold_the_same(grid: tuple[Any, list[Any]], tmp_path: Path) -> None:
    recipe, cells = grid
    lines = tabulated(cells, {})
    rows = list(csv.DictReader(io.StringIO(as_csv(lines))))
    stored = json.loads(as_json(recipe, lines, cells, {}))
    assert [row["label"] for row in rows] == [row["label"] for row in stored["rows"]]
    assert float(rows[3]["last_mean"]) == stored["rows"][3]["last_mean"] == pytest.approx(75.5)
    assert rows[3]["stage_seconds"] == "head=3.0"
    assert len(stored["runs"]) == len(cells) and stored["recipe"]["seeds"] == [0, 1, 2]
    assert write(tmp_path / "kept", recipe, cells, {}).read_text().startswith("# tiny")


def test_damaged_runs_do_not_count(grid: tuple[Any, list[Any]]) -> None:
    _, cells = grid
    task = next(cell.task for cell in cells if cell.facts.get("label") == "ce")
    (task.folder / "result.json").write_text("{")
    assert read_cell(task).status == "begun"
    (task.folder / "result.json").unlink()
    assert read_cell(task).status == "begun" and read_cell(task).epochs == 2
    (task.folder / "config.json").unlink()
    assert read_cell(task).status == "waiting"


def test_few_seeds_are_not_tested(grid: tuple[Any, list[Any]]) -> None:
    _, cells = grid
    rows = {row.label: row for row in rows_of([cell for cell in cells if cell.facts["seed"] < 2])}
    found = compare(rows["sskd"], rows["kd"])
    assert found is not None and (found.n, found.p, found.mark) == (2, None, "")
    assert compare(rows["sp"], rows["kd"]) is None
    assert mean_and_deviation([]) == (None, None) and mean_and_deviation([3.0]) == (3.0, None)


def test_published_numbers_of_imagenet() -> None:
    """By its name, or by the number of its images; not of another data set with the same pair."""
    pair = ("resnet34", "resnet18")
    named = {"name": "imagenet", "teacher_images": 1271167, "validation_images": 10000, "test_images": 50000}
    rows = ("teacher", "ce", "cc", "sp", "kd", "at", "crd", "sskd")
    errors = (26.69, 30.25, 30.04, 29.38, 29.34, 29.30, 28.62, 28.38)
    for row, error in zip(rows, errors, strict=True):
        assert published(named, *pair, row) == pytest.approx(100 - error)
        assert published({**named, "name": "my-folder"}, *pair, row) == pytest.approx(100 - error)
    assert published({**named, "name": "my-folder", "test_images": 5000}, *pair, "kd") is None
    assert published(named, "cifar_wrn_40_2", "cifar_wrn_16_2", "kd") is None
    assert published({"name": "cifar100"}, *pair, "kd") is None


def test_costs_are_read_without_what_lines_nest(tmp_path: Path) -> None:
    cost = {"stage": "student", "epoch": 1, "note": ', "x\\": {', "seconds": 2.0, "cpu_seconds": 1.5, "peak_mib": 7}
    line = json.dumps({**cost, "loss": {"total": math.nan}, "test": {"top1": 0.5}, "evaluation_seconds": 3.0})
    path = tmp_path / "log.jsonl"
    path.write_text(f"{line}\n{line}\n{line[:70]}")
    assert read_costs(path) == [cost, cost]
    turned = {"loss": {"total": 1.0}, "train": {"top1": 0.5}, **cost}  # nested first: read whole
    path.write_text(json.dumps(turned) + "\n" + line + "\n{damaged\n")
    assert [{key: one[key] for key in cost} for one in read_costs(path)] == [cost, cost]
    assert read_costs(tmp_path / "none") == []
