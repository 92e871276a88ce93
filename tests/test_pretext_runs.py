"""Whole runs with other pretexts: what their logs say, and which heads they share."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import TRAINING, Cli
from tests.interruption import SHORT, assert_refused, stop_after
from tests.photographs import write_photographs


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_exemplar_with_few_labels(distil: Cli, sskd: Cli, tmp_path: Path) -> None:
    """The head answers with the numbers of all the teacher's images; it is measured on training images alone."""
    words = (*SHORT, "--fraction", "0.5", "--options.pretext", "exemplar")
    done = distil("--out", tmp_path / "a", *words)
    assert done.code == 0, done
    assert "exemplar: 60 training images are as many answers" in done.out
    records = log_of(tmp_path / "a")
    assert [record["stage"] for record in records] == ["head", "student", "student"]
    for record in records:
        assert record["fresh"].keys() == {"ss_accuracy"} and 0 <= record["fresh"]["ss_accuracy"] <= 1
        assert "ss_accuracy" in record["train"] and "ss_accuracy" not in record["test"]
    for split in ("test", "train"):
        shown = sskd("inspect", tmp_path / "a", "--split", split, "--images", "20", "--points", "0")
        said = "exemplar asks about training images alone" in shown.out
        assert shown.code == 0 and said == (split == "test"), shown
    # The subset's own numbers: another head, of 30 answers.
    own = distil("--out", tmp_path / "b", *words, "--teacher_data", "subset")
    assert own.code == 0 and "exemplar: 30 training images are as many answers" in own.out
    assert len([*(tmp_path / "cache").glob("head-*.safetensors")]) == 2


def test_heads_without_their_gain_are_not_taken_for_others(
    distil: Cli, sskd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of an exemplar head mean nothing without it."""
    words, run = ("--out", tmp_path / "run", *SHORT, "--options.pretext", "exemplar"), tmp_path / "run"
    stop_after(monkeypatch, lambda: distil(*words), 8)
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    for values in state["modules"].values():
        for key in [key for key in values if key.endswith("gain")]:
            del values[key]
    del state["sha256"]  # as the first releases
    torch.save(state, run / "checkpoint.pt")
    assert_refused(distil(*words), "head is not made as this version of sskd makes it", "gain", "another --out")
    (kept,) = (tmp_path / "cache").glob("head-*.safetensors")
    save_file({key: value for key, value in load_file(kept).items() if not key.endswith("gain")}, kept)
    anew = distil("--out", tmp_path / "anew", *words[2:])
    assert anew.code == 0 and "reused" not in anew.out, anew


def test_heads_are_shared_by_equal_questions_alone(distil: Cli, tmp_path: Path) -> None:
    given: dict[str, tuple[str, ...]] = {
        "rotation": ("--options.pretext", "rotation"),
        "jigsaw": ("--options.pretext", "jigsaw"),
        "zoomed": ("--options.transformations", "crop_resize"),
        "two": ("--options.transformations", '["crop_resize", "rotation"]'),
        "turned": ("--options.transformations", '["rotation", "crop_resize"]'),  # the same
    }
    reused = {}
    for name, words in given.items():
        done = distil("--out", tmp_path / name, "--epochs", "1", "--options.head_epochs", "1", *words)
        assert done.code == 0, done
        records = log_of(tmp_path / name)
        reused[name] = "reused" in records[0]
        assert 0 <= records[-1]["test"]["ss_accuracy"] <= 1 and "fresh" not in records[-1]
    assert reused == {name: name == "turned" for name in given}


def test_refusals(distil: Cli, tmp_path: Path) -> None:
    refused = distil("--out", tmp_path / "run", "--options.transformations", "colour_dropping")
    assert_refused(refused, "would do nothing to images of 1 channel", "rotation, crop_resize, colour_distortion")
    refused = distil("--out", tmp_path / "run", "--options.pretext", "jigsaw", "--options.transformations", "all")
    assert_refused(refused, "The pretext jigsaw makes views of its own")
    assert not (tmp_path / "run").exists()


def test_photographs(sskd: Cli, tmp_path: Path) -> None:
    """Crops of their own for each view, decoded by workers or once; coloured, or known by their numbers."""
    data = write_photographs(tmp_path / "data", {"train": 6, "test": 3})
    small = ("--size", "15", "--validation", "0", "--epochs", "1", *TRAINING)  # odd
    taught = sskd("teacher", "--data", data, "--model", "cifar_resnet8", "--out", tmp_path / "teacher", *small)
    assert taught.code == 0, taught
    given = ("--student", "cifar_resnet8", "--data", data, "--teacher", tmp_path / "teacher", *small)
    runs: dict[str, tuple[str, ...]] = {
        "once": ("--options.transformations", "all", "--decode", "once"),
        "anew": ("--options.pretext", "exemplar", "--options.answers", "8", "--decode", "workers", "--workers", "0"),
        "puzzled": ("--options.pretext", "jigsaw"),
    }
    for name, words in runs.items():
        done = sskd("distill", *given, "--out", tmp_path / name, "--options.head_epochs", "1", *words)
        assert done.code == 0, done
        last = log_of(tmp_path / name)[-1]
        assert 0 <= last["fresh" if name == "anew" else "test"]["ss_accuracy"] <= 1
        assert ("8 of the answers are drawn in each step" in done.out) == (name == "anew")
