"""The command line: help, configs, spellings, lists, and what a command prints."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from sskd.data import SOURCES
from sskd.methods import METHODS
from sskd.methods.options import options_of
from sskd.models import zoo
from sskd.models.load import load_folder
from tests.conftest import TRAINING, Cli


def listed(text: str) -> dict[str, str]:
    """The options of a help text, each with all that is said about it."""
    # only those at the start of a line: the usage is not meant
    found = re.split(r"\n  (?:-\w, )?(--[\w.]+)", "\n" + text)
    return dict(zip(found[1::2], found[2::2], strict=True))


IMAGES = "flip padding scale size crop decode workers reading.square reading.unreadable reading.label validation "
LABELS = "per_class noise noise_kind "
OPTIONS = {
    "demo": "out seeds epochs",
    "teacher": "model data init mean std out fraction "
    + LABELS
    + "epochs batch_size optim.lr optim.momentum seed split_seed "
    "evaluate_every device precision channels_last compiled micro_batch threads relations batch_norm tensorboard "
    + IMAGES,
    "distill": "student data teacher method options fraction teacher_data teacher_labels teacher_architecture "
    "teacher_mean teacher_std teacher_size teacher_taps student_init student_taps out cache epochs batch_size optim.lr "
    "optim.schedule seed device precision " + LABELS + IMAGES,
    "evaluate": "network data architecture mean std size reading.square reading.label device",
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help(command: str, sskd: Cli) -> None:
    outcome = sskd(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    options = listed(outcome.out)
    assert {f"--{name}" for name in OPTIONS[command].split()} <= options.keys()
    for name, text in options.items():
        if name.startswith(("--optim", "--reading")):
            continue  # read from a data class, described as a whole
        said = re.sub(r"\(type: .*|\(required.*", "", " ".join(text.split()))
        assert re.search(r"[a-z]{2,} [a-z]{2,}", said), f"{name} comes without a word of help"
    assert "Args:" not in outcome.out
    assert "default: 240" in outcome.out or command == "evaluate"


def test_help_of_all(sskd: Cli) -> None:
    outcome = sskd("--help")
    assert outcome.code == 0
    for command in ("demo", "teacher", "distill", "evaluate", "list"):
        assert re.search(rf"\n    {command} +[A-Z]", outcome.out)
    assert "--debug" in outcome.out


def test_no_command(sskd: Cli) -> None:
    outcome = sskd()
    assert (outcome.code, outcome.out) == (2, "")
    assert "demo, teacher, distill, check, evaluate, predict, export, bench" in outcome.err


# configs


def words(few: Path, teacher: Path) -> tuple[str, ...]:
    given = ("--student", "cifar_resnet8", "--data", few, "--teacher", teacher, "--method", "kd", "--validation", "0.2")
    return (*map(str, given), *TRAINING, "--epochs", "2", "--optim.lr", "0.02", "--options.temperature", "3")


def arguments(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "config.json").read_text())["arguments"]
    return value


def test_print_config_is_a_config(sskd: Cli, few: Path, teacher: Path, tmp_path: Path) -> None:
    given = words(few, teacher)
    printed = sskd("distill", *given, "--print_config")
    assert (printed.code, printed.err) == (0, "")
    config = yaml.safe_load(printed.out)
    assert (config["epochs"], config["optim"]["lr"], config["options"]) == (2, 0.02, {"temperature": 3})
    (tmp_path / "kd.yaml").write_text(printed.out)
    assert sskd("distill", "--config", tmp_path / "kd.yaml", "--out", tmp_path / "yaml").code == 0
    assert sskd("distill", *given, "--out", tmp_path / "words").code == 0
    assert arguments(tmp_path / "yaml") == arguments(tmp_path / "words")
    weights = [(tmp_path / run / "student" / "model.safetensors").read_bytes() for run in ("yaml", "words")]
    assert weights[0] == weights[1]


def test_words_override_a_config(sskd: Cli, few: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "kd.yaml").write_text(sskd("distill", *words(few, teacher), "--print_config").out)
    other = ("--epochs", "1", "--optim.momentum", "0.8", "--options.kd_weight", "0.5", "--out", tmp_path / "run")
    assert sskd("distill", "--config", tmp_path / "kd.yaml", *other).code == 0
    used = arguments(tmp_path / "run")
    assert used["training"]["epochs"] == 1
    assert (used["training"]["optim"]["momentum"], used["training"]["optim"]["lr"]) == (0.8, 0.02)
    assert used["options"] == {"ce_weight": 0.1, "kd_weight": 0.5, "temperature": 3, "standardised": False}


def test_short_config_of_a_recipe(sskd: Cli, few: Path, tmp_path: Path) -> None:
    recipe = {"model": "cifar_resnet8", "data": str(few), "epochs": 1, "optim": {"lr": 0.03}, "validation": 0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    outcome = sskd("teacher", "--config", tmp_path / "recipe.yaml", *TRAINING, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert arguments(tmp_path / "run")["training"]["optim"]["lr"] == 0.03


def test_misspelt_key_in_a_config(sskd: Cli, few: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model: cifar_resnet8\nepohcs: 3\n")
    outcome = sskd("teacher", "--config", tmp_path / "bad.yaml", "--data", few)
    assert outcome.code == 2
    assert "epohcs" in outcome.err
    assert outcome.err.count("\n") == 1


def test_dashes_and_underscores(sskd: Cli, few: Path, tmp_path: Path) -> None:
    common = ("--model", "cifar_resnet8", "--data", few, "--epochs", "1", "--precision", "fp32", "--validation", "0")
    dashes = ("--batch-size", "20", "--channels-last=false", "--evaluate-every", "1", "--optim.weight-decay", "0.001")
    underscores = ("--batch_size", "20", "--channels_last=false", "--evaluate_every", "1", "--optim.weight_decay=0.001")
    for name, spelled in (("dashes", dashes), ("underscores", underscores)):
        out = tmp_path / f"with-{name}"
        assert sskd("teacher", *common, *spelled, "--out", out, "--threads", "1").code == 0
        assert out.is_dir(), "values keep their dashes"
    assert arguments(tmp_path / "with-dashes") == arguments(tmp_path / "with-underscores")


# lists


def test_list_models(sskd: Cli) -> None:
    outcome = sskd("list", "models")
    assert outcome.code == 0
    for published, ours in zoo.PUBLISHED.items():
        assert re.search(rf" {ours} .* {re.escape(published)} .*\d", outcome.out), ours
    assert re.search(r" cifar_resnet8 .* 83,", outcome.out), "parameters with 100 classes"
    assert "timm" in outcome.out


def test_list_methods(sskd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    outcome = sskd("list", "methods")
    assert outcome.code == 0
    for name, method in METHODS.items():
        (line,) = [line for line in outcome.out.splitlines() if re.match(rf"\W*{name} ", line)]
        for option, default in options_of(method).items():
            assert f"{option}={default}" in line


def test_list_data(sskd: Cli) -> None:
    outcome = sskd("list", "data")
    assert outcome.code == 0
    for name in SOURCES:
        assert re.search(rf"^\W*{name} +\W +\w", outcome.out, re.MULTILINE)
    assert "Say --data NAME, NAME:PATH, or the path of a folder" in outcome.out


# what a command prints


def test_summary(distil: Cli, sskd: Cli, few: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome = distil("--out", run, "--method", "kd", "--epochs", "3")
    result = json.loads((run / "result.json").read_text())
    lines = [line for line in outcome.out.splitlines() if not line.startswith("run: ")]
    facts = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in lines)
    assert facts == {
        "network": "cifar_resnet8",
        "method": "kd",
        "seed": "0",
        "parameters": f"{result['parameters']:,}",
        "seconds": str(result["seconds"]),
        "last": f"epoch 3: test top-1 {result['last']['test']['top1']:.2%}",
        "student": "last epoch",
        "classes": "0, 1, 2",
        "normalisation from": "the data set few",
        "weights": result["weights"],
        "finished": result["finished"],
    }
    assert result["best"] is None
    assert load_folder(run / "student").weights_hash() == result["weights"]
    assert "\x1b" not in outcome.out, "no terminal, no colours"
    measured = sskd("evaluate", "--network", run, "--data", few)
    assert measured.code == 0
    test = result["last"]["test"]
    assert re.search(rf"\btop1  {test['top1']:.2%}\n +top5  {test['top5']:.2%}\n", measured.out)
    assert re.search(r"images  30\n", measured.out)
    assert f"{run}/student/config.json" in measured.out.replace("\n", "")


def test_evaluate_a_file_with_given_normalisation(sskd: Cli, few: Path, teacher: Path) -> None:
    weights = teacher / "student" / "model.safetensors"
    config = json.loads((teacher / "student" / "config.json").read_text())["pretrained_cfg"]
    by_run = sskd("evaluate", "--network", teacher, "--data", few)
    bare = ("evaluate", "--network", weights, "--data", few, "--architecture", "resnet8")
    by_file = sskd(*bare, "--mean", config["mean"], "--std", config["std"])
    top1 = re.compile(r"top1  .*")
    assert by_file.code == 0
    assert top1.findall(by_file.out) == top1.findall(by_run.out)
    assert "the arguments" in by_file.out
    assert "does not say how resnet8 wants its images normalised" in sskd(*bare).err


def test_interruption(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sskd.runs.Run.save", interrupted)
        outcome = distil("--out", tmp_path / "run", "--method", "kd", "--epochs", "2")
    assert outcome.code == 130
    assert (
        outcome.err == "sskd: interrupted; the same command continues from the last checkpoint, if one was written.\n"
    )
    assert distil("--out", tmp_path / "run", "--method", "kd", "--epochs", "2").code == 0


def test_default_folder(sskd: Cli, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("--model", "cifar_resnet8", "--data", few, "--epochs", "1", "--validation", "0", "--seed", "3")
    assert sskd("teacher", *given, *TRAINING).code == 0
    assert (tmp_path / "runs" / "few-cifar_resnet8-ce-seed3" / "result.json").exists()
