"""What a user can get wrong: exit code 2, one line that says what was expected, what came and what to do."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sskd.models.checkpoints import load_folder
from sskd.runs import Run
from tests.conftest import TRAINING, Cli, Outcome, write_images

SHORT = ("--epochs", "2", "--options.head_epochs", "1")


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def assert_refused(outcome: Outcome, *fragments: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("sskd: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert "Traceback" not in outcome.err
    for fragment in fragments:
        assert fragment in outcome.err


def train(sskd: Cli, data: object, *words: object, model: str = "cifar_resnet8") -> Outcome:
    given = ("--model", model, "--data", str(data), "--epochs", "1", *TRAINING, *map(str, words))
    return sskd("teacher", *given)


# names and values


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        ("--student cifar_resnet9", ("no model named 'cifar_resnet9'", "Did you mean", "'cifar_resnet8'")),
        ("--method skd", ("no method named 'skd'", "Did you mean 'sskd' or 'kd'?")),
        ("--data digit", ("no data set named 'digit'", "Did you mean 'digits'?")),
        ("--data nowhere/at/all", ("nowhere/at/all does not exist", "train-*.parquet")),
        ("--options.head_epoch 3", ("no option of sskd named 'head_epoch'", "'head_epochs'")),
        ("--method kd --options.head_epochs 3", ("no option of kd named 'head_epochs'", "temperature")),
        ("--method ce --options.temperature 3", ("The method ce has no options; got 'temperature'",)),
        ("--options.ratio_tf 1.5", ("ratio_tf is the share of wrong rows", "from 0 to 1; got 1.5")),
        ("--options.ratio_ss -0.5", ("ratio_ss", "got -0.5")),
        ("--options.ratio_ss many", ("The option ratio_ss of sskd takes a number; got 'many'",)),
        ("--options.head_epochs true", ("The option head_epochs of sskd takes a", "got True")),
        ("--options.preset paper", ("preset is one of released, arxiv, supplement; got 'paper'",)),
        ("--options.pretext rotate", ("no pretext named 'rotate'", "'contrastive'")),
        ("--options.pretext 3", ("The option pretext of sskd takes a name; got 3",)),
        ("--options 3", ("options",)),
        ("--epochs -1", ("epochs must be at least 1; got -1",)),
        ("--epochs 0", ("epochs must be at least 1; got 0",)),
        ("--batch_size 0", ("batch_size must be at least 1; got 0",)),
        ("--evaluate_every 0", ("evaluate_every must be at least 1; got 0",)),
        ("--epochs many", ('"epochs"', "<class 'int'>", "many", "sskd distill --help")),
        ("--epochs 1.5", ('"epochs"', "1.5")),
        ("--flip 2", ("flip is a probability, from 0 to 1; got 2.0",)),
        ("--padding -1", ("padding must not be negative; got -1",)),
        ("--fraction 0", ("The fraction of labels is 0.0; expected more than 0 and at most 1",)),
        ("--fraction -0.5", ("The fraction of labels is -0.5",)),
        ("--fraction 1.5", ("The fraction of labels is 1.5",)),
        ("--fraction 0.02", ("label fraction of 0.02 leaves these classes without an image", "bring more images")),
        ("--validation -1", ("validation must not be negative; got -1",)),
        ("--validation 60", ("--validation is 60.0", "a number of images below 60")),
        ("--validation 7.5", ("--validation is 7.5; from 1 on it is a number of images, which must be whole",)),
        ("--validation 2", ("holds out 2 images; these classes get no validation image: ", "'1' (19 images)")),
        ("--precision fp8", ('"precision"', "'auto', 'fp32', 'bf16', 'fp64'", "fp8")),
        ("--channels_last maybe", ('"channels_last"', "maybe")),
        ("--optim.lr fast", ('"optim.lr"', "fast")),
        ("--optim.schedule linear", ('"optim.schedule"', "'step', 'onecycle', 'cosine'", "linear")),
        ("--device tpu", ("The device 'tpu' cannot be used", "Try --device auto")),
        ("--batchsize 3", ("unrecognized arguments: --batchsize 3. Did you mean --batch_size?",)),
        ("--optim.momentun 0.9", ("--optim.momentun", "Did you mean --optim.momentum")),
        ("stray", ("unrecognized arguments: stray. See sskd distill --help.",)),
        ("--config nowhere.yaml", ("File does not exist", "nowhere.yaml")),
        ("--teacher nowhere", ("There is no weights file nowhere. Give a run directory or",)),
        ("--teacher_data some", ('"teacher_data"', "'full', 'subset'", "some")),
    ],
)
def test_refused(words: str, fragments: tuple[str, ...], distil: Cli, tmp_path: Path) -> None:
    length = SHORT[:2] if "--method" in words else SHORT
    assert_refused(distil("--out", tmp_path / "run", *length, *words.split()), *fragments)
    assert list(tmp_path.iterdir()) == [], "nothing is written before all is checked"


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        ("", ("demo,teacher,distill,evaluate,list", "See sskd --help.")),
        ("list", ("models,methods,data",)),
        ("teach", ("invalid choice: 'teach'", "'teacher'")),
        ("teacher --data digits", ("required: --model.",)),
        ("distill", ("required: --student, --data.",)),
        ("list models --wide", ("unrecognized arguments: --wide",)),
        ("evaluate --network nowhere --data digits", ("There is no weights file nowhere",)),
        (
            "distill --student cifar_resnet8 --data digits",
            ("sskd distils from a teacher. Say --teacher",),
        ),
        ("distill --student cifar_resnet8 --data digits --method kd", ("kd distils from a teacher",)),
    ],
)
def test_refused_commands(words: str, fragments: tuple[str, ...], sskd: Cli, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run") if words.startswith("distill --student") else ()
    assert_refused(sskd(*words.split(), *out), *fragments)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where(distil: Cli, tmp_path: Path) -> None:
    for words in (("--epochs", "-1"), ("--epochs", "many"), ("--teacher", "nowhere")):
        outcome = distil("--out", tmp_path / "run", *words, "--debug")
        assert outcome.code == 2
        assert "Traceback (most recent call last)" in outcome.err
        assert outcome.err.splitlines()[-1].startswith("sskd: ")


def test_a_mistake_of_ours_is_told_apart(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Run, "log", broken)
    outcome = distil("--out", tmp_path / "run", *SHORT)
    assert outcome.code == 1
    assert outcome.err == "sskd: unexpected ZeroDivisionError: by zero. Repeat with --debug to see where.\n"
    with pytest.raises(ZeroDivisionError):
        distil("--out", tmp_path / "run", *SHORT, "--debug")


# data


def test_one_class_only(sskd: Cli, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", pictures(6, 8, 8), [0] * 6)
    assert_refused(train(sskd, folder, "--out", tmp_path / "run"), "has 1 class (0); a classifier needs at least 2")


def test_class_with_too_few_images_for_the_split(sskd: Cli, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", pictures(13, 8, 8), ["ant"] * 12 + ["bee"])
    refused = train(sskd, folder, "--out", tmp_path / "run", "--validation", "0.1")
    assert_refused(refused, "these classes get no validation image: 'bee' (1 image)", "say --validation 0")
    assert train(sskd, folder, "--out", tmp_path / "run", "--validation", "0").code == 0


def test_validation_takes_all_of_a_class(sskd: Cli, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", pictures(13, 8, 8), ["ant"] * 12 + ["bee"])
    refused = train(sskd, folder, "--out", tmp_path / "run", "--validation", "0.9")
    assert_refused(refused, "these classes keep no training image: 'bee' (1 image)", "Hold out fewer images")


def test_truncated_parquet(sskd: Cli, few: Path, tmp_path: Path) -> None:
    shutil.copytree(few, tmp_path / "data")
    file = tmp_path / "data" / "test.parquet"
    file.write_bytes(file.read_bytes()[:-50])
    refused = train(sskd, tmp_path / "data", "--out", tmp_path / "run")
    assert_refused(refused, f"{file} is not a whole parquet file", "Copy or download it again")


def test_images_that_are_not_square(sskd: Cli, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", pictures(8, 8, 12, 3), [0, 1] * 4)
    refused = train(sskd, folder, "--out", tmp_path / "run", "--validation", "0")
    assert_refused(refused, "are 8x12 (height x width)", "--square crop")
    cropped = train(sskd, folder, "--out", tmp_path / "run", "--validation", "0", "--square", "crop")
    assert cropped.code == 0
    assert_refused(sskd("evaluate", "--network", tmp_path / "run", "--data", folder), "--square crop")
    assert sskd("evaluate", "--network", tmp_path / "run", "--data", folder, "--square", "crop").code == 0


def test_images_too_small_for_the_network(sskd: Cli, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", pictures(8, 2, 2), [0, 1] * 4)
    refused = train(sskd, folder, "--out", tmp_path / "run", "--validation", "0", model="cifar_vgg8")
    assert_refused(refused, "cifar_vgg8 cannot take images of 1x2x2", "Choose a shallower network or larger images")


# teachers


def test_teacher_of_other_classes(sskd: Cli, teacher: Path, tmp_path: Path) -> None:
    words = ("--student", "cifar_resnet8", "--data", "digits", "--teacher", teacher, "--out", tmp_path / "run")
    refused = sskd("distill", *words)
    assert_refused(refused, "knows 3 classes (0, 1, 2), the data digits has 10", "only the data has: 3, 4, 5")
    assert not (tmp_path / "run").exists()


def test_teacher_with_classes_in_another_order(distil: Cli, few: Path, teacher: Path, tmp_path: Path) -> None:
    config = (teacher / "student" / "config.json").read_text()
    shutil.copytree(teacher / "student", tmp_path / "teacher")
    names = load_folder(teacher / "student").class_names
    network = tmp_path / "teacher" / "config.json"
    start = config.index("[", config.index('"label_names"'))
    network.write_text(config[:start] + '["1", "0", "2"' + config[config.index("]", start) :])
    assert load_folder(tmp_path / "teacher").class_names == ("1", "0", "2") != names
    refused = distil("--teacher", tmp_path / "teacher", "--out", tmp_path / "run")
    assert_refused(refused, "have the same classes in another order (1, 0, 2 and 0, 1, 2)")


def test_teacher_for_other_channels(sskd: Cli, teacher: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", pictures(9, 8, 8, 3), [0, 1, 2] * 3)
    words = ("--student", "cifar_resnet8", "--data", folder, "--teacher", teacher, "--out", tmp_path / "run")
    refused = sskd("distill", *words, "--validation", "0")
    assert_refused(refused, "cifar_resnet8 takes images of 1 channels; the data has 3")
    assert_refused(
        sskd("evaluate", "--network", teacher, "--data", folder), "takes images of 1 channels; the data has 3"
    )


def test_weights_of_another_architecture(distil: Cli, teacher: Path, tmp_path: Path) -> None:
    weights = teacher / "student" / "model.safetensors"
    out = ("--out", tmp_path / "run", "--teacher", weights)
    assert_refused(distil(*out), "holds weights alone", "--teacher_architecture NAME")
    refused = distil(*out, "--teacher_architecture", "resnet14")
    assert_refused(refused, "not of cifar_resnet14", "Keys missing: layer1.1.bn1.bias", "and 31 more")
    assert_refused(distil(*out, "--teacher_architecture", "resnet8x"), "no model named 'resnet8x'", "Did you mean")


@pytest.mark.parametrize(("mean", "std"), [("[0.1]", "[0]"), ("[0.1]", "[-1]"), ("[0.1, 0.2]", "[1]")])
def test_normalisation_that_cannot_be(mean: str, std: str, sskd: Cli, few: Path, teacher: Path) -> None:
    weights = teacher / "student" / "model.safetensors"
    bare = ("evaluate", "--network", weights, "--data", few, "--architecture", "resnet8")
    refused = sskd(*bare, "--mean", mean, "--std", std)
    assert_refused(refused, "The normalisation from the arguments cannot be used", "a std above 0")


def test_unfinished_teacher(distil: Cli, tmp_path: Path) -> None:
    Run(tmp_path / "teacher").start({"arguments": {}})
    refused = distil("--teacher", tmp_path / "teacher", "--out", tmp_path / "run")
    assert_refused(refused, "teacher is not finished", "Repeat its command to finish it first")


# where the run lies


def test_out_is_a_file(distil: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(
        distil("--out", tmp_path / "file", *SHORT), "file exists and is not a run directory", "another --out"
    )
    assert_refused(
        distil("--out", tmp_path / "file" / "run", *SHORT), "cannot be made: Not a directory", "another --out"
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_out_is_no_possible_name(distil: Cli, tmp_path: Path) -> None:
    assert_refused(distil("--out", tmp_path / ("x" * 300), *SHORT), "cannot be looked into: File name too long")


def test_log_that_is_damaged(distil: Cli, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "run", "--method", "ce", "--epochs", "1")
    assert distil(*words).code == 0
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "log.jsonl").write_text("garbage\n")
    assert_refused(distil(*words), "log.jsonl is damaged", "Restore it")


def test_a_message_of_several_lines_is_told_in_one(
    distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(Run, "log", broken)
    outcome = distil("--out", tmp_path / "run", *SHORT)
    assert outcome.err == "sskd: unexpected RuntimeError: first second. Repeat with --debug to see where.\n"


def test_out_is_a_folder_of_something_else(distil: Cli, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert_refused(distil("--out", tmp_path, *SHORT), "exists and is not a run directory", "remove it")


def test_out_is_a_run_of_another_config(distil: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert distil("--out", run, "--method", "ce", "--epochs", "1").code == 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    refused = distil("--out", run, "--method", "kd", "--epochs", "2")
    assert_refused(refused, "method: 'ce' there, 'kd' now", "training.epochs: 1 there, 2 now", "another --out")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_unwritable_place(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not bind the superuser, as whom tests may run."""
    opened = Path.open

    def denied(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    def read_only(self: Path, mode: str = "r", **keywords: Any) -> Any:
        return opened(self, mode, **keywords) if mode in ("r", "rb") else denied(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", denied)
        assert_refused(distil("--out", tmp_path / "run", *SHORT), "run cannot be made: Permission denied")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", read_only)
        refused = distil("--out", tmp_path / "run", *SHORT)
    assert_refused(refused, "config.json could not be written: Permission denied", "another --out")
    assert distil("--out", tmp_path / "run", *SHORT).code == 0


def full_at(call: int) -> Callable[[int], None]:
    """In place of os.fsync: the disk is full from the n-th call on."""
    fsync, calls = os.fsync, [0]

    def flushed(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] >= call:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    return flushed


def test_full_disk_at_every_write(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert distil("--out", tmp_path / "whole" / "run", *SHORT).code == 0
    weights = load_file(tmp_path / "whole" / "run" / "student" / "model.safetensors")
    place, finished, last = tmp_path / "full" / "run", False, 0
    for call in range(1, 40):
        shutil.rmtree(place.parent, ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full_at(call))
            refused = distil("--out", place, *SHORT)
        if finished := refused.code == 0:
            break
        assert_refused(refused, "could not be written: the disk is full. What was saved before is kept")
        if (place / "checkpoint.pt").exists():
            state = torch.load(place / "checkpoint.pt", weights_only=True)
            last = max(last, state["log_lines"])
        assert not list(place.parent.rglob("*.tmp"))
        assert distil("--out", place, *SHORT).code == 0
        again = load_file(place / "student" / "model.safetensors")
        assert again.keys() == weights.keys()
        assert all(torch.equal(again[key], weights[key]) for key in weights)
    assert finished
    assert (call, last) == (12, 3), "eleven files and lines are written"


def test_full_disk_while_timm_writes(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sskd.models.checkpoints.save_config_for_hf", full)
        assert_refused(distil("--out", tmp_path / "run", *SHORT), "could not be written: the disk is full")
    assert distil("--out", tmp_path / "run", *SHORT).code == 0


# losses


def test_loss_that_explodes_at_once(distil: Cli, tmp_path: Path) -> None:
    refused = distil("--out", tmp_path / "run", "--epochs", "3", "--method", "kd", "--optim.lr", "1e30")
    assert_refused(refused, "Loss term ", "kd", "became NaN or infinite in stage 'student' at step 1", "--optim.lr")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    assert not (tmp_path / "run" / "student").exists()


def test_loss_that_explodes_later(distil: Cli, tmp_path: Path) -> None:
    """At half of the epochs the rate rises to 1e30: the checkpoint before stays."""
    run = tmp_path / "run"
    later = ("--optim.lr", "0.01", "--optim.milestones", "[0.5]", "--optim.gamma", "1e32")
    refused = distil("--out", run, "--epochs", "4", "--method", "kd", *later)
    assert_refused(refused, "became NaN or infinite in stage 'student' at step 7", "its last good checkpoint is kept")
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    assert (state["epoch"], state["log_lines"]) == (2, 2)
    assert all(value.isfinite().all() for value in state["modules"]["student"].values())
    assert len((run / "log.jsonl").read_text().splitlines()) == 2
    again = distil("--out", run, "--epochs", "4", "--method", "kd", *later)
    assert again.err == refused.err
