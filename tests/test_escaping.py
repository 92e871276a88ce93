r"""Names and messages that others wrote, in each medium: shown as they are, obeyed by nothing."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.progress import Progress

from sskd.bench.live import Watch
from sskd.bench.results import Cell
from sskd.bench.table import as_csv, tabulated
from sskd.bench.task import Task
from sskd.data.folder import Files
from sskd.data.pictures import Pictures
from sskd.errors import UserError
from sskd.escaping import csv_cell, encoded, is_utf8, markdown, markdown_block, markdown_code, visible
from sskd.jobs.card import model_card
from sskd.jobs.predict import Prediction
from sskd.progress import Display
from sskd.report.export import as_csv as report_csv
from sskd.report.export import as_json, as_markdown
from sskd.report.found import find
from sskd.report.page import as_html, gather
from sskd.terminal import Table, Terminal
from tests.conftest import Cli
from tests.reports import config, records, write_analyses, write_run

LATIN = os.fsdecode(b"caf\xe9.png")  # a name that is not UTF-8
EVIL = "[/b]</script>\x1b[31m|`\n=x"


def shown(width: int = 100, **options: Any) -> Terminal:
    return Terminal(file=io.StringIO(), width=width, **options)


def text_of(console: Terminal) -> str:
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain, ünïcode → 猫", "plain, ünïcode → 猫"),
        ("\x1b[2J\x07\x00\x7f", r"\x1b[2J\x07\x00\x7f"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b31m\u2028", r"\x9b31m\u2028"),
        ("ab\u202egpj.exe", r"ab\u202egpj.exe"),
        (LATIN, r"caf\xe9.png"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_is_not_seen_is_written(text: str, seen: str) -> None:
    assert visible(text) == seen and is_utf8(visible(text))
    assert encoded(text).decode() == (seen if not is_utf8(text) else text), "files keep what they can"


def test_line_breaks_stay_where_they_are_meant() -> None:
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@SUM(A1)", " =x", "＝x", '-2+3+cmd|" /C calc"!A0'])
def test_no_cell_is_a_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-0.5, 3, None, "-0.5", "+3", "-1e-5", "-5%", "a=b", "", "cat"])
def test_numbers_and_names_are_left_alone(value: Any) -> None:
    assert csv_cell(value) == value


def test_rows_of_csv_are_lines() -> None:
    assert csv_cell("\t=x") == "\\t=x" and csv_cell("\r=x") == "\\r=x" and csv_cell("a\nb") == "a\\nb"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("cifar_resnet8", "cifar_resnet8"),
        ("_x_ *y* ~z~", r"\_x\_ \*y\* \~z\~"),
        ("a|b\n# c", r"a\|b # c"),
        ("# c", r"\# c"),
        ("- c", r"\- c"),
        ("3. c", r"3\. c"),
        ("---", r"\---"),
        ("-0.5", "-0.5"),
        ("<img src=x> &lt; a & b", r"\<img src=x\> \&lt; a & b"),
        ("[a](http://b)", r"\[a\](http\://b)"),
        ("`\x1b`", r"\`\\x1b\`"),
        (None, ""),
    ],
)
def test_text_means_itself_in_markdown(text: str | None, written: str) -> None:
    assert markdown(text) == written


def test_code_ends_where_it_should() -> None:
    assert markdown_code("a") == "`a`" and markdown_code("a``b") == "``` a``b ```"
    assert markdown_block("x\n```\n<b>\x1b", "sh") == "````sh\nx\n```\n<b>\\x1b\n````"


def test_a_terminal_obeys_no_name() -> None:
    console = shown(force_terminal=True, color_system=None)
    table = Table("[b]", EVIL, title="[red]x :smile:", caption="[/i]")
    table.add_row("cat[copy].png", EVIL)
    console.print(table)
    console.print(f"{EVIL} 12 :smile:")
    console.print(LATIN)
    text = text_of(console)
    assert r"[/b]</script>\x1b[31m|`\n=x" in text and "cat[copy].png" in text and "[red]x :smile:" in text
    assert "[/i]" in text and "caf\\xe9.png" in text and "\x1b[31m" not in text


def test_bars_and_benches_obey_no_name(tmp_path: Path) -> None:
    console = shown(force_terminal=True, color_system=None)
    facts = {"teacher": "a[/b]", "student": "b\x1b[31m", "label": "[/x]kd", "seed": 0, "fraction": 1.0}
    with Watch([Task("a", "student", tmp_path / "a", {}, facts=facts)], console) as watch:
        watch.tick()
    with Display(console, title="[/b]\x1b[31m") as display:
        display.progress("stage", 0, 2, 0.5)
        assert isinstance(display._bar, Progress)
        console.print(display._bar)
    text = text_of(console)
    assert "a[/b] -> b\\x1b[31m" in text and "[/x]kd" in text and "[/b]\\x1b[31m: stage epoch 1/2" in text


@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_predictions_of_odd_names(format: str, sskd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Prediction("cat[copy].png", 1, "=1+1", 0.5), Prediction(LATIN, 1, EVIL, 0.25)]
    monkeypatch.setattr("sskd.cli.predict.predictions", lambda *_: (found, ["\x1b[2Jbad.png"], ["\x1b[2J" + EVIL]))
    done = sskd("predict", "--run", "x", "y", "--format", format)
    assert done.code == 0 and "\\x1b[2Jbad.png" in done.err and "\x1b" not in done.out + done.err
    assert f"sskd: \\x1b[2J{visible(EVIL)}\n" in done.err, "a note, not what was skipped"
    assert ("1 file name is not UTF-8" in done.err) == (format != "json")
    if format == "table":
        assert all(name in done.out for name in ("cat[copy].png", "=1+1", "caf\\xe9.png", visible(EVIL)))
    elif format == "csv":
        rows = list(csv.reader(io.StringIO(done.out)))
        assert rows[1:] == [["cat[copy].png", "1", "'=1+1", "0.5"], ["caf\\xe9.png", "1", visible(EVIL), "0.25"]]
    else:
        assert [(one["path"], one["label"]) for one in json.loads(done.out)] == [(one.path, one.label) for one in found]
    assert sskd("predict", "--run", "x", "y", "--format", format, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out").read_text() == done.out


def test_files_of_any_name_are_predicted(sskd: Cli, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "[").mkdir()
    for name in (LATIN, "cat[copy].png", "[/b]y.png", "=x.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    done = sskd("predict", "--run", teacher, tmp_path)
    assert done.code == 0 and all(name in done.out for name in ("caf\\xe9.png", "cat[copy].png", "[/b]y.png", "=x.png"))


def test_names_of_any_bytes_have_a_fingerprint(tmp_path: Path) -> None:
    """As before for all others: the hash is over the bytes of the name."""
    Image.new("RGB", (8, 8)).save(tmp_path / LATIN)
    pictures = Pictures(Files([str(tmp_path / LATIN)]), torch.tensor([0]), torch.tensor([0]), 3)
    assert len(pictures.fingerprint()) == 64


def test_errors_obey_no_name(sskd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise UserError(f"There is no {EVIL} in {LATIN}.")

    monkeypatch.setattr("sskd.cli.predict.predictions", fail)
    done = sskd("predict", "--run", "x", "y")
    assert done.code == 2 and done.err == "sskd: There is no [/b]</script>\\x1b[31m|` =x in caf\\xe9.png.\n"


def test_a_card_of_odd_names() -> None:
    own = config("kd", 0, train_images=9, teacher_images=9)
    own |= {"class_names": [EVIL, LATIN, "<img src=x onerror=alert(1)>"], "teacher": {}}
    own["data"]["name"], own["environment"] = "a|b", {"command": "sskd `x`\n```\n# no heading", "sskd": 0, "timm": 0}
    own["environment"]["torch"] = 0
    record = {"test": {"top1": 0.5, "top5": 1.0}, "epoch": 1}
    result = {"network": "<b>_x_", "last": record, "best": None, "student": "last epoch", "parameters": 1}
    text = model_card(own, result, {"pretrained_cfg": {"input_size": [3, 8, 8], "mean": [0], "std": [1]}})
    lines = text.splitlines()
    assert r"# \<b\>\_x\_, distilled with kd" in lines and encoded(text).decode() == text
    assert [line for line in lines if line.startswith("| classes")] == [
        r"| classes | 3: \[/b\]\</script\>\\x1b\[31m\|\` =x, caf\\xe9.png, \<img src=x onerror=alert(1)\> |"
    ]
    assert r"| data | a\|b: 9 training images |" in lines and "<img" not in text.replace(r"\<img", "")
    assert "````\nsskd `x`\n```\n# no heading\n````" in text, "code to its end"


def test_tables_of_odd_labels(tmp_path: Path) -> None:
    facts = {"teacher": "t", "student": "s", "label": "=x", "method": "kd", "seed": 0, "fraction": 1.0}
    cell = Cell(Task("a", "student", tmp_path, {}, facts=facts), "begun")
    (row,) = csv.DictReader(io.StringIO(as_csv(tabulated([cell], {"a": "@no\nroom"}))))
    assert (row["label"], row["failed"]) == ("'=x", "'@no\\nroom")


def test_reports_of_odd_names(tmp_path: Path) -> None:
    own = config("=x", 0)
    own["arguments"]["network"] = EVIL
    run = write_run(tmp_path / LATIN, own | {"class_names": [EVIL, LATIN]}, records("kd", 0))
    write_analyses(run)
    path = run / "analyses" / "inspect.json"
    values = json.loads(path.read_text())
    for point in values["embedding"]["points"]:
        point["class"] = f"{LATIN}</script>"
    path.write_text(json.dumps(values))
    page = gather(find([str(tmp_path)]), EVIL, "now", "sskd report", "0")
    html = encoded(as_html(page)).decode()
    assert html.count("</script>") == 2 and "caf\\xe9.png" in html
    plots = html.split('id="plots">')[1].split("</script>")[0]
    assert json.loads(plots)[-1]["views"][0]["series"][0]["label"].endswith("</script>")
    text = encoded(as_markdown(page, {})).decode()
    assert text.startswith(r"# \[/b\]\</script\>\\x1b\[31m\|\` =x" + "\n")
    (row,) = csv.DictReader(io.StringIO(report_csv(page)))
    assert row["label"] == "'=x" and encoded(report_csv(page))
    assert json.loads(as_json(page))["rows"][0]["label"] == "=x"
