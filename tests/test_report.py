"""Reports rendered from folders made by hand: what they say, in each format, and what they refuse."""

import csv
import io
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel

from sskd.files import alone_in
from sskd.report.command import command_of
from sskd.report.curves import hide_most
from sskd.report.found import find
from sskd.report.page import Page, _keys, as_html, gather
from sskd.report.plots import Series
from sskd.report.run import PATIENCE
from sskd.settings import Training
from tests.conftest import Cli
from tests.reports import STUDENT, TEACHER, config, records, write_analyses, write_grid, write_run, write_study

CELLS = f"cells/{TEACHER}--{STUDENT}-0"


def page_of(*places: Path) -> Page:
    return gather(find([str(place) for place in places]), "", "now", "sskd report", "0")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four methods, three seeds. Not to be written to."""
    return write_grid(tmp_path_factory.mktemp("grid") / "bench", seeds=3)


def test_rows_are_computed_from_runs(grid: Path) -> None:
    (group,) = page_of(grid).parts[0].section.groups
    assert [row["label"] for row in group.rows] == ["teacher", "sskd", "at", "kd", "ce"], "the best first"
    best, kd = group.rows[1], group.rows[3]
    ours, theirs = ([json.loads((grid / CELLS / f"{method}-seed{seed}/result.json").read_text())["last"]["test"]["top1"]
                     for seed in range(3)] for method in ("sskd", "kd"))  # fmt: skip
    assert best["last_mean"] == pytest.approx(100 * sum(ours) / 3)
    assert best["vs_kd"] == pytest.approx(100 * (sum(ours) - sum(theirs)) / 3)
    assert best["vs_kd_p"] == pytest.approx(ttest_rel(ours, theirs).pvalue)
    assert (best["published"], kd["published"], best["stage_seconds"]) == (76.04, 74.92, {"head": 8.0})


def test_the_answer_comes_first(grid: Path) -> None:
    page = page_of(grid)
    best, kd = (next(row for row in page.parts[0].section.groups[0].rows if row["label"] == name)
                for name in ("sskd", "kd"))  # fmt: skip
    assert page.headline.startswith(f"sskd is best, with {best['last_mean']:.2f} ± {best['last_deviation']:.2f} %")
    facts = {fact.name: fact for fact in page.answers[0].facts}
    assert facts["points to KD"].value == f"{best['vs_kd']:+.2f}"
    assert facts["CPU time of sskd"].note == f"{(best['cpu_seconds'] + 8) / kd['cpu_seconds']:.1f} × that of KD"
    assert "paired t-test over 3 seeds" in page.answers[0].sure


def test_few_seeds_are_said_to_prove_nothing(tmp_path: Path) -> None:
    sure = page_of(write_grid(tmp_path / "one", seeds=1)).answers[0].sure
    assert "With 1 seed no test was made" in sure and "p =" not in sure


def test_a_bench_that_is_a_table_alone(tmp_path: Path) -> None:
    rows = [{"teacher": "a", "student": "b", "label": name, "method": name, "n": 1, "of": 2, "last_mean": mean}
            for name, mean in (("ce", 50.0), ("kd", 52.0))]  # fmt: skip
    rows.append({**rows[0], "label": "at", "n": 0, "last_mean": None, "failed": "no <room>"})
    (tmp_path / "table.json").write_text(json.dumps({"recipe": {"name": "tiny", "data": "x/digits"}, "rows": rows}))
    page = page_of(tmp_path)
    assert (page.title, page.parts[0].section.data, page.finished) == ("tiny", "digits", False)
    text = as_html(page)
    assert "failed: no &lt;room&gt;" in text and "2 trainings have no result yet" in text
    assert "sskd bench tiny.yaml --data x/digits --out" in text and "no run directories" in text


def test_broken_and_half_written_runs_appear_as_such(tmp_path: Path) -> None:
    top = write_grid(tmp_path / "bench", ("kd",), seeds=4)
    (top / CELLS / "kd-seed0/result.json").write_text("{")
    (top / CELLS / "kd-seed1/config.json").unlink()
    (top / CELLS / "kd-seed2/result.json").unlink()
    with (top / CELLS / "kd-seed2/log.jsonl").open("a") as log:
        log.write('{"stage": "student", "ep')
    lines = {Path(run.folder).name: run for run in page_of(top).runs}
    assert [lines[f"kd-seed{i}"].word for i in range(4)] == ["broken", "broken", "not finished", "finished"]
    assert "not valid" in lines["kd-seed0"].problem or "cannot be read" in lines["kd-seed0"].problem
    assert lines["kd-seed1"].problem == "config.json is missing."
    assert lines["kd-seed2"].epochs == "4 of 4"
    assert "could not be read whole" in as_html(page_of(top))


def test_runs_of_different_data_are_kept_apart(grid: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "digits", config("ce", 0, name="digits", test_images=797), records("ce", 0))
    page = page_of(grid, tmp_path)
    assert [part.section.title for part in page.parts] == ["cifar100", "digits"]
    assert "Runs of different data" in page.warnings[0] and "cannot be compared" in page.warnings[0]
    assert page.headline.startswith("sskd is best"), "one of a kind is compared with nobody"


def test_what_users_write_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>&\"'"
    own = config(evil, 0)
    write_run(tmp_path / "run", {**own, "class_names": [evil]}, records("kd", 0))
    write_analyses(tmp_path / "run")
    text = as_html(page_of(tmp_path))
    assert "<script>alert" not in text and "bear &amp; &lt;b&gt;cub&lt;/b&gt;" in text
    assert text.count("</script>") == 2


def test_studies_and_analyses(tmp_path: Path) -> None:
    top = write_grid(tmp_path / "bench", seeds=1)
    write_study(top)
    write_analyses(top / CELLS / "sskd-seed0")
    page = page_of(top)
    assert {plot.title for plot in page.plots} >= {"What do few labels cost?", "Calibration", "Features", "Curves"}
    text = as_html(page)
    assert text.count("data:image/jpeg;base64,") == 2 * 8 + 2 * 8, "two matrices' heads, eight pairs of the gallery"
    for said in ("agree on 78.0 %", "stl10", "Accuracy by class", "The teacher saw all images.", "left out"):
        assert said in text


def test_studies_of_one_method_rank_no_methods(tmp_path: Path) -> None:
    """Studies of one method in several ways have no part in what ranks best, of several methods they do."""
    rows = [{"teacher": "a", "student": "b", "label": name, "method": "sskd", "n": 1, "of": 1, "last_mean": mean,
             "last_deviation": None} for name, mean in (("sskd", 50.0), ("sskd-ratio_ss0", 52.0))]  # fmt: skip
    for name in ("transfer-ratio", "loss-terms"):
        top = write_study(tmp_path, name)
        (top / "table.json").write_text(json.dumps({"recipe": {"name": name}, "rows": rows, "runs": []}))
        study = json.loads((top / "study.json").read_text())
        one = {**study, "series": [{**study["series"][0], "method": "sskd"}]}
        (top / "study.json").write_text(json.dumps(one))
    assert page_of(tmp_path).headline == "2 studies, each of one method in several ways: what each says is below."
    assert page_of(tmp_path / "loss-terms").headline.startswith("sskd-ratio_ss0 is best, with 52.00 %")
    several = write_study(tmp_path)
    rows = [{**row, "label": name, "method": name} for row, name in zip(rows, ("ce", "kd"), strict=True)]
    (several / "table.json").write_text(json.dumps({"recipe": {"name": "few-labels"}, "rows": rows, "runs": []}))
    assert page_of(tmp_path).headline.startswith("kd is best, with 52.00 %")


def test_thumbnails_stay_within_the_folder_and_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", config("kd", 0), records("kd", 0))
    write_analyses(run)
    path = run / "analyses/inspect.json"
    values = json.loads(path.read_text())
    values["noisy"] = [{**values["noisy"][0], "image": "../../outside.jpg"}]
    path.write_text(json.dumps(values))
    (tmp_path / "outside.jpg").write_bytes((run / "analyses/inspect/0.jpg").read_bytes())
    assert page_of(tmp_path).looked[0].gallery[0]["image"] == ""
    monkeypatch.setattr("sskd.report.page.THUMBNAILS", 500)
    page = page_of(tmp_path)
    assert "thumbnails were left out" in page.warnings[-1] and "not inlined" in as_html(page)


def test_many_runs_keep_their_tables_and_thin_their_curves(tmp_path: Path) -> None:
    methods = [f"m{i}" for i in range(40)]
    page = page_of(write_grid(tmp_path / "bench", methods, seeds=5, epochs=20))
    text = as_html(page)
    assert len(page.runs) == 201 and len(page.parts[0].section.groups[0].rows) == 41
    assert text.count('class="state finished"') == 201 and len(text) < 2_000_000
    one = page_of(tmp_path / "bench")
    numbers = sum(len(s.x) + len(s.y) for part in one.parts if part.curves for v in part.curves.views for s in v.series)
    assert 0 < numbers <= 160_000


def test_commands_repeat_runs() -> None:
    arguments: dict[str, Any] = config("kd", 3, teacher="runs/a teacher")["arguments"]
    words = command_of(arguments, "out").split()
    assert words[:4] == ["sskd", "distill", "--student", STUDENT]
    assert "--teacher 'runs/a teacher'" in " ".join(words)
    assert {"--seed", "--epochs", "--optim.schedule", "--options.weight", "--out"} <= set(words)
    assert Training().batch_size == 64 and "--batch_size" not in words, "defaults are not said"
    assert command_of(config("ce", 0)["arguments"], "out").startswith(f"sskd teacher --model {TEACHER} --data ")


def test_other_formats(grid: Path, tmp_path: Path, sskd: Cli) -> None:
    outcome = sskd("report", grid, "--format", "csv", "--out", tmp_path / "r.csv")
    assert (outcome.code, outcome.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    assert sskd("report", "--format", "json", "--out", tmp_path / "r.json", grid).code == 0
    stored = json.loads((tmp_path / "r.json").read_text())
    assert [row["label"] for row in rows] == [row["label"] for row in stored["rows"]]
    assert float(rows[1]["last_mean"]) == stored["rows"][1]["last_mean"]
    assert len(stored["runs"]) == 13 and stored["headline"].startswith("sskd is best")


def test_markdown_links_its_plots(grid: Path, tmp_path: Path, sskd: Cli) -> None:
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    assert sskd("report", grid, "--format", "md", "--plots", "svg", "--out", tmp_path / "r.md").code == 0
    text = (tmp_path / "r.md").read_text()
    assert "| sskd | no | 3 |" in text and "sskd distill --student" in text
    names = [part.split(")")[0] for part in text.split("](")[1:]]
    assert "r-plots/cifar100-curves-student-loss-total.svg" in names  # the title of the section, not its place
    assert len(names) >= 3 and all((tmp_path / name).read_text().startswith("<?xml") for name in names)


def test_refusals(grid: Path, tmp_path: Path, sskd: Cli) -> None:
    (tmp_path / "empty").mkdir()
    for words, said in (
        (["report"], "Say what to report on"),
        (["report", tmp_path / "none"], "does not exist"),
        (["report", ""], "A path is empty"),
        (["report", grid, "--out", ""], "--out is empty"),
        (["report", grid / "teachers" / f"{TEACHER}-seed0" / "config.json"], "is a file"),
        (["report", tmp_path / "empty"], "expected folders with config.json"),
        (["report", grid, "--live", "--format", "md"], "--live is for"),
    ):
        outcome = sskd(*words)
        assert outcome.code == 2 and said in outcome.err, outcome.err


def test_live_follows_until_all_has_ended(tmp_path: Path, sskd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", config("kd", 0), records("kd", 0), finished=False)
    seen = []
    training = ExitStack()
    training.enter_context(alone_in(run))

    def sleep(seconds: float) -> None:
        seen.append((tmp_path / "r.html").read_text())
        (run / "result.json").write_text(json.dumps({"last": records("kd", 0)[-1], "best": None}))
        training.close()

    monkeypatch.setattr("sskd.report.run.time.sleep", sleep)
    outcome = sskd("report", "--live", tmp_path / "run", "--out", tmp_path / "r.html")
    assert outcome.code == 0 and "no result" not in outcome.out
    assert len(seen) == 1 and 'http-equiv="refresh"' in seen[0] and "a process is training here" in seen[0]
    assert 'http-equiv="refresh"' not in (tmp_path / "r.html").read_text()


def test_live_ends_where_nobody_trains_any_more(tmp_path: Path, sskd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench that was given up; another that its study's folder shares is seen at work first."""
    top = write_grid(tmp_path / "bench", ("kd", "ce"), seeds=1)
    (top / CELLS / "kd-seed0/result.json").unlink()
    rows = [{"teacher": "a", "student": "b", "label": "kd", "n": 0, "of": 1}]
    study = write_study(top)
    (study / "table.json").write_text(json.dumps({"rows": rows}))
    (top / "table.json").write_text(
        json.dumps({"recipe": {"name": "digits-small", "data": "d", "seeds": [0]}, "rows": rows})
    )
    looks, training = list[str](), ExitStack()
    training.enter_context(alone_in(top))

    def sleep(seconds: float) -> None:
        looks.append((tmp_path / "r.html").read_text())
        training.close()

    monkeypatch.setattr("sskd.report.run.time.sleep", sleep)
    outcome = sskd("report", "--live", top, "--out", tmp_path / "r.html")
    assert outcome.code == 0 and len(looks) == PATIENCE
    assert looks[0].count("1 training has no result yet; a process is training here") == 2
    assert "· nothing is running, renewed" in looks[1]
    last = (tmp_path / "r.html").read_text()
    assert last.count("1 training has no result yet, and no process is training here") == 2
    command = f"sskd bench digits-small --data d --seeds '[0]' --out {top}"
    assert "Continue it" in last and "refresh" not in last and command in outcome.out
    assert "sskd study few-labels --data cifar100\n" in outcome.out
    with alone_in(top):
        assert page_of(study).busy and page_of(top / CELLS / "kd-seed0").busy, "the folder above is looked at as well"
        run = next(one for one in page_of(top).runs if one.folder.endswith("kd-seed0"))
        assert run.word == "not finished", "something trains here, but not this"


def test_no_torch(grid: Path, tmp_path: Path) -> None:
    words = ["report", str(grid), "--out", str(tmp_path / "r.html")]
    heavy = "[name for name in ('torch', 'timm') if name in sys.modules]"
    code = f"import sys; from sskd.cli.main import main; main({words}); print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n"), done.stdout
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")


def test_a_real_run(teacher: Path) -> None:
    page = page_of(teacher)
    assert page.finished and page.runs[0].last is not None
    assert "sskd teacher --model cifar_resnet8" in as_html(page)


def test_of_many_curves_the_best_begin_visible() -> None:
    """By accuracy, also where the loss is shown, of which the worst have most; beside the student alone and KD."""
    labels = ["ce", "kd", *(f"method{i}" for i in range(8))]
    accuracy = [Series(label, [1], [float(i)], group=label) for i, label in enumerate(labels)]
    loss = [Series(label, [1], [-float(i)], group=label) for i, label in enumerate(labels)]
    hide_most({("student", "test / top1"): accuracy, ("student", "loss / total"): loss})
    for shown in (accuracy, loss):
        assert [one.label for one in shown if not one.faint] == ["ce", "kd", "method5", "method6", "method7"]


def test_plots_keep_their_names() -> None:
    assert _keys(["few-labels", "A bench!", "few-labels", "few labels 2", "???"]) == [
        "few-labels",
        "a-bench",
        "few-labels-2",
        "few-labels-2-2",
        "runs",
    ]
