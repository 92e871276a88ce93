"""Which runs belong to which table of a report, what they are called, and what their costs are measured in."""

import json
from pathlib import Path
from typing import Any

from sskd.files import alone_in
from sskd.report.configs import configs_of
from sskd.report.export import as_csv, as_markdown
from sskd.report.found import find
from sskd.report.page import Page, as_html, gather
from sskd.report.sections import sections_of
from sskd.report.summary import study_answer
from tests.reports import STUDENT, TEACHER, config, records, write_analyses, write_grid, write_run, write_study

PAIR = f"{TEACHER}--{STUDENT}-0"


def page_of(*places: Path) -> Page:
    return gather(find([str(place) for place in places]), "", "now", "sskd report", "0")


def listed(method: str, seed: int = 0, status: str = "finished", **facts: Any) -> dict[str, Any]:
    """A run as tables list it."""
    names = {"teacher": TEACHER, "student": STUDENT, "label": method, "method": method, "seed": seed}
    return {**names, "fraction": 1.0, **facts, "status": status, "folder": f"{PAIR}/{method}-seed{seed}"}


def row(method: str, mean: float | None, n: int = 1, **more: Any) -> dict[str, Any]:
    names = {"teacher": TEACHER, "student": STUDENT, "label": method, "method": method}
    return {**names, "n": n, "of": 1, "last_mean": mean, **more}


def test_a_table_has_the_runs_that_it_names(tmp_path: Path) -> None:
    """The bench's and the study's share a folder; one run is both's, one nobody's."""
    top = write_grid(tmp_path / "bench", ("ce", "kd", "at"), seeds=1)
    (top / "table.json").write_text(json.dumps({
        "recipe": {"name": "r"}, "rows": [row("ce", 60.0), row("kd", None, 0)],
        "runs": [listed("ce"), listed("kd", status="begun"), {"folder": f"{TEACHER}-seed0"}],
    }))  # fmt: skip
    study = write_study(top)
    (study / "table.json").write_text(json.dumps({"rows": [], "runs": [listed("kd", noise=0.5), listed("ce")]}))
    found = find([str(top)])
    sections = sections_of(found)
    assert [(one.title, sorted(run.folder.name for run in one.runs)) for one in sections] == [
        ("r", ["ce-seed0", f"{TEACHER}-seed0", "kd-seed0"]),
        ("few-labels", ["ce-seed0", "kd-seed0"]),
        ("cifar100: runs that no table lists", ["at-seed0"]),
    ]
    assert list(sections[1].labels.values()) == ["ce", "kd, 50 % noise"]
    assert "older than 1 of its trainings" in sections[0].notes[0] and "--only_table true" in sections[0].notes[0]
    told = [kind.label for one in configs_of(sections) for kind in one.kinds]
    assert len(told) == len(set(told)) == 4, "each run once"
    text = as_html(page_of(top))
    assert "No result yet: kd." in text and "older than 1 of its trainings" in text


def test_curves_of_a_student_alone_stand_beside_the_others(tmp_path: Path) -> None:
    top = write_grid(tmp_path / "bench", ("kd",), seeds=1)
    own = config("ce", 0)
    own["arguments"]["network"] = STUDENT
    own["stages"][0]["name"] = "train"
    write_run(top / "cells" / PAIR / "ce-seed0", own, [{**one, "stage": "train"} for one in records("ce", 0)])
    plot = page_of(top).parts[0].curves
    assert plot is not None and {view.name[0] for view in plot.views} == {"student", "teacher"}
    first = plot.views[0]
    assert first.name == ("student", "test / top1") and sorted(one.group for one in first.series) == ["ce", "kd"]


def test_costs_are_named_by_what_was_measured(tmp_path: Path) -> None:
    """The process's seconds on a CPU, the clock's on a GPU."""
    cpu, gpu = tmp_path / "cpu", tmp_path / "gpu"
    for top, device in ((cpu, "cpu"), (gpu, "cuda")):
        for path in write_grid(top, ("ce", "kd"), seeds=1).rglob("config.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"execution": {"device": device}}))
    for top, unit, other, seconds in ((cpu, "CPU\u00a0s", "GPU", 64), (gpu, "GPU\u00a0s", "CPU", 72)):
        page = page_of(top)
        assert {line["unit"] for part in page.parts for group in part.section.groups for line in group.rows} == {
            page.unit
        }
        assert page.unit == unit.replace("\u00a0", " ") and page.parts[0].cost.x == page.unit  # type: ignore[union-attr]
        text = as_html(page)
        assert unit in text and f"{other} s" not in text and f"{other} time" not in text
        assert next(run.seconds for run in page.runs if run.label == "kd") == seconds
        assert f"| {page.unit} |" in as_markdown(page, {}) and page.unit in as_csv(page)
    assert page_of(cpu, gpu).unit == "CPU s or GPU s"


def test_what_a_study_says() -> None:
    points = [{"x": 0.0, "n": 2, "mean": 50.0, "values": {"0": 49.0, "1": 51.0}},
              {"x": 0.5, "n": 1, "mean": 46.0, "values": {"0": 46.0}}]  # fmt: skip
    series = [{"label": "kd", "points": points}, {"label": "new", "points": points[:1]}]
    study = {"question": "How?", "x": {"label": "wrong", "values": [0.0, 0.5]}, "series": series}
    said = study_answer(study)
    assert said is not None and [(fact.name, fact.value) for fact in said.facts] == [("kd", "−3.00")], "paired by seed"
    assert "1 seed at least" in said.sure
    kinds = [{"x": "rotation", "n": 1, "mean": 50.0}, {"x": "jigsaw", "n": 1, "mean": 51.0}]
    study |= {
        "x": {"name": "pretext", "values": ["rotation", "jigsaw"]},
        "series": [{"label": "sskd", "points": kinds}],
    }
    said = study_answer(study)
    assert said is not None and (said.facts[0].value, said.facts[0].name) == ("51.00 %", "sskd: jigsaw")
    partly = {"x": {"values": [0.0, 0.5, "2 per class"]}, "series": [{"label": "kd", "points": points}]}
    said = study_answer(partly)
    assert said is not None and said.facts[0].value == "−3.00", "what has no result yet does not count"
    assert study_answer({"series": []}) is None


def test_a_bench_is_at_work_while_one_of_its_runs_is(tmp_path: Path) -> None:
    """Also where a run of it was begun by itself."""
    top = write_grid(tmp_path / "bench", ("ce", "kd"), seeds=1)
    folder = top / "cells" / PAIR / "kd-seed0"
    (folder / "result.json").unlink()
    table = {"rows": [row("ce", 60.0), row("kd", None, 0)], "runs": [listed("ce"), listed("kd", status="begun")]}
    (top / "table.json").write_text(json.dumps(table))
    section, *_ = sections_of(find([str(top)]))
    assert not section.busy
    with alone_in(folder):
        section, *_ = sections_of(find([str(top)]))
    assert section.busy


def test_axes_of_kinds_and_of_bins_are_named(tmp_path: Path) -> None:
    top = write_grid(tmp_path / "bench", ("kd",), seeds=1)
    study = write_study(top)
    values = json.loads((study / "study.json").read_text())
    values["x"]["values"] = kinds = ["all", "without ss", "without tf"]
    for one in values["series"]:
        for point, kind in zip(one["points"], kinds, strict=True):
            point |= {"x": kind, "deviation": None if kind == "all" else 0.5}
    (study / "study.json").write_text(json.dumps(values))
    write_analyses(top / "cells" / PAIR / "kd-seed0")
    plots = {plot.title: plot for plot in page_of(top).plots}
    view = plots["What do few labels cost?"].views[0]
    assert view.ticks == [(0.0, "all"), (1.0, "without ss"), (2.0, "without tf")]
    low = view.series[0].low
    assert not view.series[0].join and low is not None and low[0] is None and low[1] is not None
    assert [text for _, text in plots["Error levels of the teacher"].views[0].ticks] == ["0", "1", "2", "3"]
