"""The paths that newcomers are given, run as they stand there."""

import csv
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import Cli

DOCS = Path(__file__).parent.parent / "docs"


def blocks(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(python|sh)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", ["your-own-data.md", "your-own-model.md"])
def test_copy_and_paste(name: str, sskd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = blocks((DOCS / name).read_text())
    assert sum(kind == "sh" for kind, _ in found) >= 4
    said = dict[str, object]()
    for kind, code in found:
        if kind == "python":
            variables: dict[str, object] = {}
            exec(compile(code, name, "exec"), variables)
            said |= {"label": variables["label"]} if "label" in variables else {}
            continue
        for line in code.strip().splitlines():
            program, *words = shlex.split(line)
            assert program == "sskd"
            done = sskd(*words)
            assert done.code == 0, f"{line}\n{done.err}"
    runs = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/result.json"))
    expected = {
        "your-own-data.md": ["in-memory", "student", "teacher"],
        "your-own-model.md": ["brought", "from-python", "named", "small", "tuned"],
    }
    assert runs == expected[name]
    if name == "your-own-data.md":
        rows = list(csv.DictReader((tmp_path / "labels.csv").open()))
        assert len(rows) == 16
        assert [said["label"]] == [row["label"] for row in rows if row["path"].endswith("flower/0.jpg")]
        assert (tmp_path / "sheet.png").stat().st_size > 1000
