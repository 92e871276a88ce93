"""Files with anything in them: a report says so and shows the rest; nothing that it shows runs or leaves the page."""

import json
from pathlib import Path
from typing import Any

import pytest

from sskd.report.export import as_json, as_markdown
from sskd.report.found import find
from sskd.report.page import Page, as_html, gather
from tests.conftest import Cli
from tests.reports import config, records, write_analyses, write_grid, write_run, write_study

EVIL = "<img src=x onerror=alert(1)>"


def page_of(*places: Path) -> Page:
    return gather(find([str(place) for place in places]), "", "now", "sskd report", "0")


@pytest.mark.parametrize(("odd", "said"), [
    ({"arguments": ["a"]}, "arguments: expected names with values; got ['a']"),
    ({"arguments": {"training": 3}}, "arguments.training: expected"),
    ({"arguments": {"training": {"seed": [1]}}}, "arguments.training.seed: expected a whole number; got [1]"),
    ({"arguments": {"method": ["kd"]}}, "arguments.method: expected text"),
    ({"data": "digits"}, "data: expected"),
    ({"optim": [1]}, "optim: expected"),
    ({"stages": [3]}, "stages[0]: expected names with values; got 3"),
    ({"class_names": 3}, "class_names: expected a list"),
    ({"teacher": {"architecture": ["x"]}}, "teacher.architecture: expected text"),
    ({"execution": [1]}, "execution: expected"),
])  # fmt: skip
def test_a_config_with_odd_values(odd: dict[str, Any], said: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "odd", config("kd", 0), records("kd", 0))
    (run / "config.json").write_text(json.dumps(config("kd", 0) | odd))
    write_run(tmp_path / "good", config("kd", 1), records("kd", 1))
    page = page_of(tmp_path)
    words = {Path(run.folder).name: (run.word, run.problem) for run in page.runs}
    assert words["good"] == ("finished", "") and words["odd"][0] == "broken"
    assert words["odd"][1].startswith(f"{run / 'config.json'}, {said}") and "could not be read" in as_html(page)


@pytest.mark.parametrize(("name", "text", "said"), [
    ("result.json", "{}", "result.json: last is missing; got {}."),
    ("result.json", '{"last": {"test": {"top1": "x"}}}', "result.json, last.test.top1: expected a number; got 'x'"),
    ("result.json", '{"last": {"test": {"top1": 1}, "epoch": 1}, "best": [1]}', "result.json, best: expected"),
    ("log.jsonl", '{"stage": "a", "epoch": 1, "seconds": "x"}\n', "line 1, seconds: expected a number; got 'x'"),
    ("log.jsonl", '{"stage": 3, "epoch": 1}\n', "log.jsonl, line 1, stage: expected text; got 3"),
])  # fmt: skip
def test_results_and_logs_with_odd_values(name: str, text: str, said: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "odd", config("kd", 0), records("kd", 0))
    (run / name).write_text(text)
    (line,) = page_of(tmp_path).runs
    assert line.word == "broken" and said in line.problem


def test_a_log_whose_lines_change_their_form(tmp_path: Path) -> None:
    run = write_run(tmp_path / "odd", config("kd", 0), records("kd", 0))
    unlike = {"stage": "student", "epoch": 5, "loss": {"ce": 3}, "seconds": 1}
    with (run / "log.jsonl").open("a") as log:
        log.write("\n".join(map(json.dumps, (unlike, records("kd", 0)[-1]))) + "\n")
    assert page_of(tmp_path).runs[0].epochs == "6"


def test_tables_studies_and_analyses_with_odd_values(tmp_path: Path) -> None:
    top = write_grid(tmp_path / "bench", ("kd", "ce"), seeds=1)
    (top / "table.json").write_text(json.dumps({"recipe": "r", "rows": [{"n": "many"}], "runs": ["a"]}))
    study = write_study(top)
    values = json.loads((study / "study.json").read_text())
    values["series"][0]["points"] = [{"mean": 3.0}]
    (study / "study.json").write_text(json.dumps(values))
    runs = sorted((top / "cells").glob("*/*"))
    for run in runs:
        write_analyses(run)
    (runs[0] / "analyses/probe-stl10.json").write_text("{")
    inspect = runs[1] / "analyses/inspect.json"
    inspect.write_text(json.dumps(json.loads(inspect.read_text()) | {"embedding": {"points": [{"class": 1}]}}))
    page = page_of(top)
    problems = "\n".join(page.warnings)
    assert problems.count("It is left out.") == 2 and "table.json, recipe: expected" in problems
    assert "probe-stl10.json cannot be read" in problems
    assert "values that no analysis writes" in problems and len(page.looked) == 1
    assert page.headline.startswith("kd is best") and "It is left out." in as_html(page)


def test_nothing_that_is_shown_can_run(tmp_path: Path) -> None:
    """Names of runs, classes, methods, series, stages; in the page and in Markdown."""
    top = tmp_path / EVIL.replace("/", "")
    own = config(EVIL, 0)
    own["arguments"] |= {"data": EVIL, "network": EVIL}
    own["data"]["name"] = own["class_names"][0] = own["stages"][-1]["name"] = EVIL
    run = write_run(top / "cells" / "pair" / "run", own, [{**one, "stage": EVIL} for one in records("kd", 0)])
    write_analyses(run)
    for path in (run / "analyses").glob("*.json"):
        path.write_text(path.read_text().replace("stage1", EVIL).replace("apple", EVIL).replace("stl10", EVIL))
    study = write_study(top)
    path = study / "study.json"
    path.write_text(path.read_text().replace("few labels", EVIL).replace('"kd"', json.dumps(EVIL)))
    (study / "table.json").write_text(json.dumps({"rows": [{"label": EVIL, "teacher": EVIL, "failed": EVIL, "n": 0}]}))
    page = page_of(top)
    text = as_html(page)
    assert EVIL not in text and "&lt;img src=x" in text and text.count("<script") == 2
    plain = as_markdown(page, {}).partition("```sh")[0]
    assert "\\<img src=x" in plain and "<img src=x" not in plain.replace("\\<", "")
    assert json.loads(as_json(page))["runs"]


def test_the_file_that_is_written(tmp_path: Path, sskd: Cli) -> None:
    run = write_run(tmp_path / "run", config("kd", 0), records("kd", 0))
    refused = sskd("report", run, "--out", tmp_path / "r.md")
    assert refused.code == 2 and "is for --format md; the format is html" in refused.err
    (tmp_path / "folder.html").mkdir()
    refused = sskd("report", run, "--out", tmp_path / "folder.html")
    assert refused.code == 2 and "could not be written" in refused.err
