"""What continues a run, what is refused, and what other runs reuse of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sskd.cli.main import main
from tests.conftest import Cli
from tests.interruption import (
    SHORT,
    assert_equal,
    assert_refused,
    change_weights,
    flipped,
    outcome,
    stop_after,
    tensors,
    words_for,
)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--seed", "7"), "training.seed: 0 there, 7 now"),
        (("--optim.lr", "0.5"), "training.optim.lr: None there, 0.5 now"),
        (("--options.ss", "3"), "options.ss: None there, 3 now"),
        (("--teacher_data", "subset"), "teacher_data: 'full' there, 'subset' now"),
    ],
)
def test_other_config_is_refused(
    changed: tuple[str, str], message: str, distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stop_after(monkeypatch, lambda: distil("--out", run, *SHORT), 1)
    refused = distil("--out", run, *SHORT, *changed)
    assert refused.code == 2
    assert f"{run} holds a run of another config (arguments: {message})" in refused.err
    assert sorted(path.name for path in run.iterdir()) == [".lock", "config.json"]


def test_other_teacher_or_data_under_the_same_name(
    few: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sskd: Cli
) -> None:
    """The arguments are the same words; what they name has changed."""
    data, model, run = tmp_path / "data", tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(few, data)
    shutil.copytree(teacher, model)
    words = words_for(data, model, run, *SHORT)
    stop_after(monkeypatch, lambda: main(words), 5)
    weights = model / "student" / "model.safetensors"
    weights.write_bytes(flipped(content := weights.read_bytes(), len(content) - 1))
    assert_refused(sskd(*words), f"{weights} is damaged", "it does not hold what was written (SHA-256)")
    change_weights(model)
    refused = sskd(*words)
    assert refused.code == 2
    assert "another config (teacher: weights: '" in refused.err
    shutil.copy(teacher / "student" / "model.safetensors", weights)
    shutil.copy(data / "test.parquet", data / "train.parquet")
    refused = sskd(*words)
    assert refused.code == 2
    assert "another config (data: mean: " in refused.err
    assert "; teacher_images: 48 there, 24 now; " in refused.err


def test_a_teacher_that_was_moved(
    few: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sskd: Cli
) -> None:
    """Its weights count, not its path: a begun run goes on, a finished one is known; other weights are refused."""
    here, there, run = tmp_path / "here", tmp_path / "there", tmp_path / "run"
    shutil.copytree(teacher, here)
    stop_after(monkeypatch, lambda: main(words_for(few, here, run, *SHORT)), 1)
    here.rename(there)
    shutil.copytree(there, here)
    result = json.loads((there / "result.json").read_text())
    (here / "result.json").write_text(json.dumps({**result, "weights": "other"}))
    change_weights(here)
    assert "config (teacher: weights: '" in sskd(*words_for(few, here, run, *SHORT)).err, "under the same name"
    other = here.rename(tmp_path / "other")
    assert "config (arguments: teacher.place: '" in sskd(*words_for(few, other, run, *SHORT)).err
    (other / "result.json").write_text(json.dumps(result))  # it is not what it says
    assert "config (teacher: weights: '" in sskd(*words_for(few, other, run, *SHORT)).err
    assert main(words_for(few, there, run, *SHORT)) == 0
    monkeypatch.chdir(tmp_path)
    again = sskd(*words_for(few, Path("there"), run, *SHORT))
    assert again.code == 0 and "is finished already" in again.out + again.err


def test_half_a_line_and_half_a_file(few: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = words_for(few, teacher, tmp_path / "a" / "run", *SHORT)
    assert main(words) == 0
    run = tmp_path / "b" / "run"
    words = words_for(few, teacher, run, *SHORT)
    stop_after(monkeypatch, lambda: main(words), 6)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"stage": "student", "epo')
    for name in (".checkpoint.pt.tmp", ".config.json.tmp"):
        (run / name).write_bytes(b"half")
    assert main(words) == 0
    for name in (".checkpoint.pt.tmp", ".config.json.tmp"):
        (run / name).unlink(missing_ok=True)
    assert_equal(outcome(run), outcome(tmp_path / "a" / "run"))


def test_killed_while_the_config_was_written(distil: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".config.json.tmp").write_bytes(b"{")
    assert distil("--out", run, *SHORT).code == 0


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_damaged_checkpoint(
    content: bytes | None, distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before it is taken; where that is damaged too, both are named, and nothing is changed."""
    run, whole = tmp_path / "run", tmp_path / "whole" / "run"
    assert distil("--out", whole, *SHORT).code == 0
    stop_after(monkeypatch, lambda: distil("--out", run, *SHORT), 10)  # all is trained, nothing finished
    last, previous = run / "checkpoint.pt", run / "checkpoint.previous.pt"
    good = previous.read_bytes()

    def damage(path: Path) -> None:
        if content is None:
            torch.save({"weights": torch.zeros(2)}, path)
        else:
            path.write_bytes(content and path.read_bytes()[:-100])

    for path in (last, previous):
        damage(path)
    log = (run / "log.jsonl").read_text()
    refused = distil("--out", run, *SHORT)
    names = (f"The checkpoint {last} cannot be read (", f"The checkpoint {previous} cannot be read (")
    assert_refused(refused, *names, f"Delete {last} and {previous} to start the run anew.")
    assert (run / "log.jsonl").read_text() == log
    previous.write_bytes(good)
    again = distil("--out", run, *SHORT)
    assert again.code == 0
    assert (
        f"{last} cannot be read (" in again.out and "goes on from the one before, checkpoint.previous.pt" in again.out
    )
    assert_equal(outcome(run), outcome(whole))


def test_a_checkpoint_of_another_seed(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for folder, seed in ((run, "0"), (other, "1")):
        stop_after(monkeypatch, lambda: distil("--out", folder, *SHORT, "--seed", seed), 5)  # noqa: B023
    shutil.copy(other / "checkpoint.pt", run / "checkpoint.pt")
    refused = distil("--out", run, *SHORT)
    assert_refused(refused, "checkpoint.pt is of another run", "arguments.training.seed: 1 there, 0 now")


def test_an_execution_that_was_edited(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another precision another student would come out."""
    run = tmp_path / "run"
    stop_after(monkeypatch, lambda: distil("--out", run, *SHORT), 2)  # the config, no checkpoint yet
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(
        config.replace('"precision": "fp32",\n    "channels', '"precision": "bf16",\n    "channels')
    )
    assert (run / "config.json").read_text() != config
    assert_refused(distil("--out", run, *SHORT), "config.json was changed since the run began", "Restore it")


def test_other_threads_and_processor_are_warned_of(
    distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stop_after(monkeypatch, lambda: distil("--out", run, *SHORT), 6)
    config = json.loads((run / "config.json").read_text())
    config["environment"]["processor"] = "Abacus, 7 cores"
    (run / "config.json").write_text(json.dumps(config))
    resumed = distil("--out", run, *SHORT, "--threads", "2")
    assert resumed.code == 0
    assert "This run began with 1 threads; it goes on with as many." in resumed.out
    assert torch.get_num_threads() == 1
    assert "This run began on Abacus, 7 cores" in resumed.out


def reused(outcome: Any) -> bool:
    assert outcome.code == 0, outcome.err
    return "head: reused from" in outcome.out


def test_head_is_shared(distil: Cli, tmp_path: Path) -> None:
    once = ("--epochs", "1", "--options.head_epochs", "1")
    assert not reused(distil("--out", tmp_path / "0", *once))
    (head,) = (tmp_path / "cache").glob("*.safetensors")
    content, trained = head.read_bytes(), tensors(head)
    assert reused(distil("--out", tmp_path / "1", *once, "--seed", "1"))
    assert reused(distil("--out", tmp_path / "2", *once, "--options.ss", "3", "--options.temperature", "2"))
    assert reused(distil("--out", tmp_path / "3", *once, "--student", "cifar_resnet14", "--optim.lr", "0.2"))
    assert reused(distil("--out", tmp_path / "4", *once, "--fraction", "0.5", "--epochs", "2"))
    assert reused(distil("--out", tmp_path / "elsewhere" / "5", "--cache", tmp_path / "cache", *once))
    assert head.read_bytes() == content
    assert trained
    head.write_bytes(content[:-10])
    assert not reused(distil("--out", tmp_path / "6", *once))
    assert tensors(head) == trained, "whoever trains the head gets the same one"
    one, other = (tmp_path / name / "student" / "model.safetensors" for name in ("0", "6"))
    assert one.read_bytes() == other.read_bytes(), "reused or trained in this run, the head is the same"


@pytest.mark.parametrize(
    "changed",
    [
        ("--batch_size", "15"),
        ("--validation", "0.2"),
        ("--teacher_data", "subset", "--fraction", "0.7"),
        ("--padding", "2"),
        ("--flip", "0"),
        ("--options.head_epochs", "2"),
        ("--options.head_lr", "0.01"),
        ("--precision", "bf16"),
    ],
)
def test_head_is_not_shared(changed: tuple[str, ...], distil: Cli, tmp_path: Path) -> None:
    once = ("--epochs", "1", "--options.head_epochs", "1")
    assert not reused(distil("--out", tmp_path / "0", *once))
    assert not reused(distil("--out", tmp_path / "1", *once, *changed))
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2


def test_head_is_not_shared_between_teachers(few: Path, teacher: Path, sskd: Cli, tmp_path: Path) -> None:
    other = tmp_path / "teacher"
    shutil.copytree(teacher, other)
    change_weights(other)
    for number, model in enumerate((teacher, other)):
        assert not reused(sskd(*words_for(few, model, tmp_path / "runs" / str(number), *SHORT)))
    assert len(list((tmp_path / "runs" / "cache").glob("*.safetensors"))) == 2


def test_checkpoints_hold_no_code(distil: Cli, tmp_path: Path) -> None:
    assert distil("--out", tmp_path / "run", *SHORT).code == 0
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert (state["stage"], state["epoch"], state["log_lines"]) == ("student", 2, 3)
    assert not any(key.startswith("teacher.") for key in state["modules"])
