"""What is recorded of a machine, and what a person sees of a run."""

import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from sskd.environment import environment, git_state, processor
from sskd.progress import Display, describe


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/sskd", "teacher", "--epochs", "2"])
    facts = environment()
    assert facts["command"] == "sskd teacher --epochs 2"
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads() == 1
    assert facts["processor"] == processor()
    assert re.fullmatch(r".+, [1-9]\d* cores?", facts["processor"])
    expected = {"command", "python", "sskd", "torch", "torchvision", "timm", "numpy", "platform", "processor"}
    assert set(facts) == expected | {"threads", "processes", "accelerator", "allocator", "git"}
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize(
    ("loaded", "expected"),
    [
        ("7f0 r-xp 0 08:01 1 /usr/lib/x86_64-linux-gnu/libc.so.6\n7f1 rw-p 0 00:00 0 [heap]\n", None),
        ("7f0 r-xp 0 08:01 1 /usr/lib/libtcmalloc_minimal.so.4.5.10\n7f1 r-xp 0 08:01 2 /usr/lib/libc.so.6\n",
         "libtcmalloc_minimal.so.4.5.10"),
        ("7f0 r--p 0 08:01 1 /opt/my libs/libjemalloc.so.2\n", "libjemalloc.so.2"),
        ("7f0 r--p 0 08:01 1 /opt/libmimalloc/other.so\n", None),
    ],
)  # fmt: skip
def test_allocator(loaded: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "maps").write_text(loaded)
    monkeypatch.setattr("sskd.memory.MAPS", tmp_path / "maps")
    assert environment()["allocator"] == expected
    monkeypatch.setattr("sskd.memory.MAPS", tmp_path / "of another system")
    assert environment()["allocator"] is None


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() is None
    author = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    (tmp_path / "file").write_text("one")
    for words in (("init", "-q"), ("add", "file"), (*author, "commit", "-qm", "first")):
        subprocess.run(["git", *words], check=True)
    state = git_state()
    assert state is not None
    assert re.fullmatch("[0-9a-f]{40}", state["commit"])
    assert state["uncommitted_changes"] is False
    (tmp_path / "file").write_text("two")
    assert git_state() == {"commit": state["commit"], "uncommitted_changes": True}
    monkeypatch.setenv("PATH", "")
    assert git_state() is None


# what a person sees


def record(epoch: int) -> dict[str, Any]:
    scores = {"train": {"top1": 0.5, "top5": 1.0}, "test": {"top1": 0.25, "ss_accuracy": 0.1}}
    return {"stage": "student", "epoch": epoch, "loss": {"total": 1.2345}, "images_per_s": 99.7, **scores}


def test_one_line_for_an_epoch() -> None:
    assert describe(record(3)) == (
        "student epoch 3: loss 1.234 · train 50.00% · test 25.00% · test ss 10.00% · 100 images/s"
    )


def test_plain_lines_elsewhere_than_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with Display(Console(file=stream), "small") as display:
        for epoch in range(1, 41):
            now[0] += 1
            display.progress("student", epoch - 1, 40, 0.5)
            display.epoch(record(epoch), 40)
        display.note("[bold]as it is[/bold]")
    printed = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert len(printed) == 5
    assert printed[0] == "small: student epoch 11/40: 50% (0.5 min left)"
    assert printed[-2] == f"small: {describe(record(40))}", "the last epoch of a stage, however quick"
    assert printed[-1] == "small: [bold]as it is[/bold]"


def test_the_last_of_epochs_too_short_to_be_looked_into_is_printed() -> None:
    """As those of the demo are: a step each, so that no progress was ever told."""
    stream = io.StringIO()
    with Display(Console(file=stream), "small") as display:
        for epoch in (1, 2, 3):
            display.epoch(record(epoch), 3)
    assert stream.getvalue().splitlines()[-1] == f"small: {describe(record(3))}"


def test_a_bar_on_a_terminal() -> None:
    stream = io.StringIO()
    with Display(Console(file=stream, force_terminal=True, width=120)) as display:
        display.progress("head", 0, 2, 0.5)
        display.progress("student", 0, 2, 0.5)
        display.epoch(record(1), 2)
    assert "student epoch 1/2" in stream.getvalue()
    assert "student epoch 1: loss 1.234" in stream.getvalue()
