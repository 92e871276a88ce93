"""Files, run directories, the cache, what a result was computed with, and which epoch a run keeps."""

import errno
import io
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from sskd import files
from sskd.data import load_source
from sskd.environment import environment, git_state, processor
from sskd.errors import UserError
from sskd.jobs import Job, Splits, cut
from sskd.methods.plan import Optim, Stage, Term
from sskd.progress import Display, describe
from sskd.runs import Run, SharedCache, flat
from sskd.settings import Training
from tests.conftest import Cli

# files


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"good": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[broken], full)
    with pytest.raises(UserError, match=r"result\.json could not be written: the disk is full\. What was saved"):
        files.write_json(path, {"better": 2})
    assert files.read_json(path) == {"good": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_a_write_that_is_killed_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"good": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            files.write_json(path, {"better": 2})
    assert files.read_json(path) == {"good": 1}
    left = [file for file in tmp_path.iterdir() if file != path]
    assert [files.is_temporary(file) for file in left] == [True]
    files.write_json(path, {"better": 2})
    assert files.read_json(path) == {"better": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        calls.append(f"fsync of {os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def named(self: Path, target: Path) -> Path:
        calls.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", named)
    files.write_atomic(tmp_path / "file", b"1234567")
    assert calls == ["fsync of 7 bytes", "replace"]


def test_an_error_without_a_number_is_still_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(*_: object) -> None:
        raise OSError("the tape is out")

    monkeypatch.setattr(os, "fsync", odd)
    with pytest.raises(UserError, match="could not be written: the tape is out"):
        files.write_atomic(tmp_path / "file", b"")


@pytest.mark.parametrize("content", ["{", "[1]", "\x00"])
def test_damaged_json(content: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"result\.json is not valid JSON .*start anew with another --out"):
        files.read_json(path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run cannot be made: Not a directory\. Choose another --out"):
        files.make_folder(tmp_path / "file" / "run")


def test_an_unreadable_checkpoint_is_told_in_one_line(tmp_path: Path) -> None:
    torch.save({"log_lines": torch.nn.Linear(1, 1)}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError) as caught:
        files.load_checkpoint(tmp_path / "checkpoint.pt", "log_lines")
    assert "checkpoint.pt cannot be read (" in str(caught.value)
    assert "\n" not in str(caught.value)


# run directories


def begun(path: Path, **arguments: object) -> Run:
    run = Run(path)
    run.start({"arguments": arguments})
    return run


def test_new_folders(tmp_path: Path) -> None:
    assert Run(tmp_path / "nowhere").config() is None
    assert Run(tmp_path).config() is None
    assert not (tmp_path / "nowhere").exists(), "asking makes nothing"
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"exists and is not a run directory\. Choose another --out"):
        Run(tmp_path).config()
    with pytest.raises(UserError, match=r"thesis\.tex exists and is not a run directory"):
        Run(tmp_path / "thesis.tex").config()


def test_config_comparison(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", seed=0, sizes=(1, 2), training={"lr": 0.1, "threads": 2})
    run.same({"seed": 0, "sizes": (1, 2), "training": {"lr": 0.1, "threads": 2}}, "arguments")
    run.same({"seed": 0, "sizes": [1, 2], "training": {"lr": 0.1}}, "arguments", but=("training.threads",))
    with pytest.raises(UserError) as caught:
        run.same({"seed": 1, "training": {"lr": 0.2, "threads": 2}, "new": True}, "arguments")
    assert (
        "another config (arguments: new: None there, True now; seed: 0 there, 1 now; sizes: [1, 2] there, None now; "
        "training.lr: 0.1 there, 0.2 now)"
    ) in str(caught.value)
    with pytest.raises(UserError, match=r"teacher: weights: None there, 'abc' now"):
        run.same({"weights": "abc"}, "teacher")


def test_flat() -> None:
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": {}}) == {"a": 1, "b.c": 2, "b.d.e": 3}


def test_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert run.records() == []
    for epoch in (1, 2):
        run.log({"epoch": epoch})
    run.save({"weights": torch.arange(3)})
    run.log({"epoch": 3})
    with (run.path / "log.jsonl").open("a") as log:
        log.write('{"epoch": 4')
    assert [record["epoch"] for record in run.records()] == [1, 2, 3]
    again = Run(run.path)
    state = again.load()
    assert state is not None
    assert state["weights"].tolist() == [0, 1, 2]
    assert "log_lines" not in state
    assert (run.path / "log.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    again.log({"epoch": 3})
    assert [record["epoch"] for record in again.records()] == [1, 2, 3]


def test_without_a_checkpoint_the_log_begins_anew(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.log({"epoch": 1})
    assert run.load() is None
    assert run.records() == []


@pytest.mark.parametrize("damage", [b"garbage\n", b"\xff\xfe\n", b'{"epoch"\n'])
def test_damaged_log(damage: bytes, tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run.path / "log.jsonl").write_bytes(damage + b'{"epoch": 2}\n')
    with pytest.raises(UserError, match=r"log\.jsonl is damaged \(.*Restore it, or start anew with another --out"):
        run.records()


def test_log_cut_within_a_character(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run.path / "log.jsonl").write_bytes(b'{"epoch": 1}\n{"reused": "' + "é".encode()[:1])
    assert run.records() == [{"epoch": 1}]


def test_a_place_that_cannot_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"cannot be looked into: File name too long\. Choose another --out"):
        Run(tmp_path / ("x" * 300)).config()

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(UserError, match=r"run cannot be looked into: Permission denied"):
        Run(tmp_path / "run").config()


def test_result_means_finished(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert run.result() is None
    run.finish({"best": None})
    assert Run(run.path).result() == {"best": None}


# the cache


class Nothing(Term):
    pass


def stage(**change: Any) -> Stage:
    loss, trains, optim = {"head": (1.0, Nothing())}, ("teacher_head",), Optim(lr=0.1)
    settings: dict[str, Any] = {"loss": loss, "trains": trains, "epochs": 3, "optim": optim}
    return Stage(name="head", shared=True, **(settings | change))


def test_cache_gives_back_what_it_was_given(tmp_path: Path) -> None:
    cache = SharedCache(tmp_path / "cache", {"teacher": "abc"}, tmp_path)
    assert cache.find(stage()) is None
    states = {"teacher_head": {"0.weight": torch.randn(3, 2), "0.bias": torch.randn(3)}}
    path = cache.keep(stage(), states, {"epoch": 3})
    found = cache.find(stage())
    assert found is not None
    assert found[0] == path
    assert found[1].keys() == states.keys()
    for name, value in states["teacher_head"].items():
        assert torch.equal(found[1]["teacher_head"][name], value)
    assert set(load_file(path)) == {"teacher_head/0.weight", "teacher_head/0.bias"}
    header = path.read_bytes()[8:].split(b"}}", 1)[0].decode()
    assert "abc" in header, "the recipe can be read off the file"


@pytest.mark.parametrize(
    ("address", "change"),
    [
        ({"teacher": "other"}, {}),
        ({"teacher": "abc", "data": "more"}, {}),
        ({"teacher": "abc"}, {"epochs": 4}),
        ({"teacher": "abc"}, {"optim": Optim(lr=0.2)}),
        ({"teacher": "abc"}, {"optim": Optim(lr=0.1, milestones=(0.5,))}),
        ({"teacher": "abc"}, {"loss": {"head": (2.0, Nothing())}}),
    ],
)
def test_cache_tells_recipes_apart(address: dict[str, str], change: dict[str, Any], tmp_path: Path) -> None:
    SharedCache(tmp_path, {"teacher": "abc"}, tmp_path).keep(stage(), {"teacher_head": {"w": torch.zeros(1)}}, {})
    assert SharedCache(tmp_path, {"teacher": "abc"}, tmp_path).find(stage()) is not None
    assert SharedCache(tmp_path, address, tmp_path).find(stage(**change)) is None


def test_damaged_cache_counts_as_none(tmp_path: Path) -> None:
    cache = SharedCache(tmp_path, {}, tmp_path)
    path = cache.keep(stage(), {"teacher_head": {"w": torch.zeros(9)}}, {})
    path.write_bytes(path.read_bytes()[:-4])
    assert cache.find(stage()) is None


def test_two_students_may_keep_the_same_head_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (SharedCache(tmp_path, {}, Path(run)) for run in ("one", "other"))
    fsync, calls = os.fsync, [0]
    states = {"teacher_head": {"w": torch.arange(9.0)}}

    def interleaved(descriptor: int) -> None:
        """While the first is writing, the other begins and ends."""
        calls[0] += 1
        if calls[0] == 1:
            other.keep(stage(), states, {"by": "the other"})
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interleaved)
    path = one.keep(stage(), states, {"by": "the first"})
    assert calls == [2]
    assert list(tmp_path.iterdir()) == [path]
    found = other.find(stage())
    assert found is not None
    assert torch.equal(found[1]["teacher_head"]["w"], torch.arange(9.0))


# the environment


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/sskd", "teacher", "--epochs", "2"])
    facts = environment()
    assert facts["command"] == "sskd teacher --epochs 2"
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads() == 1
    assert facts["processor"] == processor()
    assert re.fullmatch(r".+, [1-9]\d* cores?", facts["processor"])
    expected = {"command", "python", "sskd", "torch", "torchvision", "timm", "numpy", "platform", "processor"}
    assert set(facts) == expected | {"threads", "accelerator", "git"}
    assert json.loads(json.dumps(facts)) == facts


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
    with Display(Console(file=stream)) as display:
        for epoch in range(1, 41):
            now[0] += 1
            display.progress("student", epoch - 1, 40, 0.5)
            display.epoch(record(epoch))
        display.note("[bold]as it is[/bold]")
    printed = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert len(printed) == 4
    assert printed[0] == "student epoch 11/40: 50% (0.5 min left)"
    assert printed[-1] == "[bold]as it is[/bold]"


def test_a_bar_on_a_terminal() -> None:
    stream = io.StringIO()
    with Display(Console(file=stream, force_terminal=True, width=120)) as display:
        display.progress("head", 0, 2, 0.5)
        display.progress("student", 0, 2, 0.5)
        display.epoch(record(1))
    assert "student epoch 1/2" in stream.getvalue()
    assert "student epoch 1: loss 1.234" in stream.getvalue()


# the epoch that is kept


def test_best_epoch_on_validation_is_kept(distil: Cli, sskd: Cli, few: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = distil("--out", run, "--validation", "0.3", "--epochs", "8", "--method", "kd", "--optim.lr", "0.2")
    assert done.code == 0
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    scores = [record["validation"]["top1"] for record in records]
    best = scores.index(max(scores))
    assert best < len(scores) - 1, "else this test says nothing: choose another seed"
    result = json.loads((run / "result.json").read_text())
    assert result["best"] == records[best]
    assert result["last"] == records[-1]
    assert result["student"] == "best epoch on validation"
    assert records[best]["test"] != records[-1]["test"]
    top1 = f"{records[best]['test']['top1']:.2%}"
    assert f"best  epoch {best + 1}: validation top-1 {max(scores):.2%}, test top-1 {top1}" in done.out
    measured = sskd("evaluate", "--network", run, "--data", few)
    assert f"top1  {top1}" in measured.out
    kept, last = load_file(run / "student" / "model.safetensors"), torch.load(run / "checkpoint.pt", weights_only=True)
    for key, value in last["best"]["student"].items():
        assert torch.equal(kept[key], value)
    assert any(not torch.equal(kept[key], value) for key, value in last["modules"]["student"].items())


def test_splits_are_apart(few: Path) -> None:
    source = load_source(str(few))
    job = Job(few, "cifar_resnet8", str(few), "ce", Training(validation=12), fraction=0.5)
    splits: Splits = cut(source, job)
    assert (len(splits.full), len(splits.train), len(splits.evaluation["validation"])) == (48, 24, 12)
    assert list(splits.evaluation) == ["validation", "test"]
    seen = {image.numpy().tobytes() for image in splits.full.pixels}
    assert not seen & {image.numpy().tobytes() for image in splits.evaluation["validation"].pixels}
    assert {image.numpy().tobytes() for image in splits.train.pixels} <= seen
    assert splits.evaluation["test"] is source.test
