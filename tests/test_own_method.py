"""A method outside the package, as the documentation writes it."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.find import announced, find_method
from sskd.methods.options import options_of
from sskd.models.build import build
from sskd.stopping import Terminated
from sskd.views.find import find_pretext
from tests.conftest import Cli

DOCS = Path(__file__).parents[1] / "docs" / "methods.md"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path with the documentation's file in it."""
    own = DOCS.read_text().partition("## A method of your own")[2]
    (code,) = re.findall(r"```python\n(.*?)```", own, flags=re.DOTALL)
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "toy.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    return folder


def test_one_file_is_enough(toy: Path, distil: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = distil("--method", "toy:plan", "--epochs", "2", "--options.weight", "0.2", "--out", run)
    assert done.code == 0, done
    log = (run / "log.jsonl").read_text()
    assert '"error": ' in log and '"ce": ' in log and '"kd": ' not in log
    assert '"method": "toy:plan"' in (run / "config.json").read_text()
    refused = distil("--method", "toy:plan", "--options.wieght", "1", "--out", tmp_path / "other")
    assert refused.code == 2 and "Did you mean 'weight'" in refused.err


def test_an_error_in_it_names_its_line(toy: Path, distil: Cli, tmp_path: Path) -> None:
    file = toy / "broken.py"
    file.write_text("def plan(pair, *, epochs, optim):\n    return pair.studnet\n")
    done = distil("--method", "broken:plan", "--epochs", "1", "--out", tmp_path / "run")
    assert done.code == 2 and "The method broken:plan fails: 'Pair' object has no attribute 'studnet'" in done.err
    assert f"({file}, line 2). Mend it there." in done.err


def test_an_installed_package_announces_it(toy: Path, distil: Cli, sskd: Cli, tmp_path: Path) -> None:
    information = toy / "toy-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[sskd.methods]\nlogit-error = toy:plan\nkd = toy:plan\n")
    assert announced() == ["logit-error"], "names of the registry stay what they are"
    assert find_method("logit-error").__module__ == "toy" and find_method("kd") is METHODS["kd"]
    assert "logit-error" in sskd("list", "methods").out
    assert distil("--method", "logit-error", "--epochs", "1", "--out", tmp_path / "run").code == 0
    assert "Did you mean 'logit-error'" in distil("--method", "logit-eror", "--out", tmp_path / "no").err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all:plan", "cannot be imported: No module named 'nowhere_at_all'"),
        ("toy:plam", "has no attribute 'plam'"),
        ("toy:__doc__", "is no function, but a str"),
    ],
)
def test_mistakes(toy: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_method(name)


def test_every_method_has_its_entry() -> None:
    """With all options of the method, and a line in the table."""
    text = DOCS.read_text()
    entries = {part.split(":")[0]: part for part in text.split("\n## ")[1:]}
    assert [*METHODS] == [name for name in entries if name in METHODS]
    assert [*METHODS] == re.findall(r"^\| `(\w+)` \|", text.partition("\n## ")[0], flags=re.MULTILINE)
    for name, method in METHODS.items():
        common = {"ce_weight", "kd_weight", "stages", "init_lr", "pretext"}
        for option in options_of(method).keys() - common:
            assert f"`{option}`" in entries[name], f"{name}: {option}"


@pytest.mark.parametrize(
    ("find", "code"),
    [
        (find_method, "def plan(pair, *, epochs, optim): pass"),
        (find_pretext, "from sskd.views.rotation import Rotation as plan"),
        (lambda name: build(name, 2, 3), "import torch\ndef plan(): return torch.nn.Linear(3, 2)"),
    ],
)
def test_the_working_folder_is_looked_into(
    find: Callable[[str], object], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For methods, pretexts and networks alike, also where Python was not started there."""
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.delitem(sys.modules, "in_the_working_folder", raising=False)
    (tmp_path / "in_the_working_folder.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    find("in_the_working_folder:plan")
    assert sys.modules["in_the_working_folder"].__file__ == str(tmp_path / "in_the_working_folder.py")


def test_sigterm_in_an_import_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "being_ended.py").write_text("from sskd.stopping import Terminated\nraise Terminated\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Terminated):
        find_method("being_ended:plan")
