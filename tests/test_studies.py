"""Each study from its command to its files, on a few handwritten digits; and that they share what they can."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sskd.bench.task import Outcome, Task, perform
from sskd.cli.main import main
from sskd.errors import UserError
from sskd.studies.options import variant
from tests.benches import fake_run, write_recipe
from tests.conftest import Cli

PAIR = "cifar_resnet8--cifar_resnet8/"
TRAINED = list[str]()


class Here:
    """Runs tasks in this process, in their order, and takes note of those that were not there."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        for task in tasks:
            if not task.finished:
                TRAINED.append(task.name.removeprefix(PAIR))
                try:
                    perform(task)
                except UserError as error:
                    yield Outcome(task, False, str(error))
                    continue
            yield Outcome(task, True)


@pytest.fixture(scope="module")
def folder(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a recipe, and what all studies of it come to."""
    folder = tmp_path_factory.mktemp("studies")
    methods: dict[str, Any] = {"ce": {}, "kd": {}, "sskd": {"head_epochs": 1}}
    training = {"batch_size": 20, "validation": 12, "precision": "fp32", "channels_last": False, "threads": 1}
    write_recipe(folder, data=str(few), methods=methods, training={**training, "epochs": 1, "tensorboard": False})
    return folder


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sskd.studies.run.engine_of", lambda *_: Here())


def study(folder: Path, name: str, *words: str) -> tuple[dict[str, Any], list[str], str]:
    """Run it; study.json, what it had to train, and its Markdown."""
    TRAINED.clear()
    assert main(["study", name, "--recipe", str(folder / "tiny.yaml"), "--out", str(folder / "out"), *words]) == 0
    place = folder / "out" / name
    rows = list(csv.DictReader((place / "table.csv").open()))
    assert rows and len(json.loads((place / "table.json").read_text())["rows"]) == len(rows)
    return json.loads((place / "study.json").read_text()), [*TRAINED], (place / "table.md").read_text()


def points(found: dict[str, Any], label: str) -> dict[Any, dict[str, Any]]:
    """A series' points by x; all of them finished."""
    series = next(one for one in found["series"] if one["label"] == label)
    assert all(point["n"] == point["of"] == 1 and point["mean"] is not None for point in series["points"])
    return {point["x"]: point for point in series["points"]}


def accuracy(folder: Path, cell: str) -> float:
    result = json.loads((folder / "out" / "cells" / PAIR / cell / "result.json").read_text())
    return float(100 * result["last"]["test"]["top1"])


def test_few_labels(folder: Path) -> None:
    words = ("--shares", "[0.5, 1]", "--per_class", "[3]", "--methods", "[ce, kd]")
    found, trained, text = study(folder, "few-labels", *words)
    assert trained == [
        "cifar_resnet8-seed0",
        *("ce-fraction0.5-seed0", "kd-fraction0.5-seed0", "ce-seed0", "kd-seed0"),
        *("ce-3-per-class-seed0", "kd-3-per-class-seed0"),
    ]
    assert found["x"] == {"name": "images", "label": "training images", "values": ["50 %", "100 %", "3 per class"]}
    assert points(found, "kd")["50 %"]["mean"] == accuracy(folder, "kd-fraction0.5-seed0")
    kept = load_file(folder / "out" / "cells" / PAIR / "kd-3-per-class-seed0" / "labels.safetensors")
    assert len(kept["train"]) == 9 and torch.equal(
        kept["train"],
        load_file(folder / "out" / "cells" / PAIR / "ce-3-per-class-seed0" / "labels.safetensors")["train"],
    )
    assert "The teacher saw 48 images with right labels" in text and "| kd |" in text and "50 %" in text
    assert any("The teacher saw 48 images" in note for note in found["notes"])
    assert "few-labels --shares '[0.5, 1.0]' --per_class '[3]' --methods" in found["command"]
    same = study(folder, "few-labels", "--shares", "[0.5, 1]", "--methods", "[kd]", "--same_steps", "true")
    assert same[1] == ["kd-fraction0.5-same-steps-seed0"]
    assert same[0]["x"]["values"] == [0.5, 1.0] and "as many steps" in same[2]
    log = (folder / "out" / "cells" / PAIR / same[1][0] / "log.jsonl").read_text().splitlines()
    assert len(log) == 2, "half of the images, twice the epochs"


def test_noisy_labels(folder: Path) -> None:
    found, trained, text = study(
        folder, "noisy-labels", "--noises", "[0, 0.25]", "--pair_flips", "[0.25]", "--methods", "[kd]"
    )
    assert {"kd-noise0.25-seed0", "kd-pair-flip0.25-seed0"} <= {*trained} and "kd-seed0" not in trained[1:]
    assert [one["label"] for one in found["series"]] == ["kd", "kd, pair-flip"]
    symmetric, flipped = points(found, "kd"), points(found, "kd, pair-flip")
    assert symmetric[0.0] == flipped[0.0] and symmetric[0.25]["mean"] == accuracy(folder, "kd-noise0.25-seed0")
    assert "The teacher saw 48 images with right labels" in text and "first to last" in text
    same = study(folder, "noisy-labels", "--noises", "[0.25]", "--teachers_see", "same", "--methods", "[kd]")
    assert same[1] == ["cifar_resnet8-noise0.25-teacher-same-seed0", "kd-noise0.25-teacher-same-seed0"]
    assert "The teacher saw 48 images with 25 % symmetric noise" in same[2] and "the student's labels" in same[2]


def test_loss_terms(folder: Path) -> None:
    found, _, _ = study(folder, "loss-terms", "--factors", "[0.5, 1]", "--swept", "[ss]")
    left_out = ["all", "without ce", "without kd", "without tf", "without ss", "ce + kd alone", "ss x 0.5"]
    assert found["x"]["values"] == left_out and [*points(found, "SSKD")] == left_out
    config = json.loads((folder / "out" / "cells" / PAIR / "sskd-tf0-ss0-seed0" / "config.json").read_text())
    assert config["stages"][-1]["loss"] == {"ce": 0.1, "kd": 0.9, "tf": 0.0, "ss": 0.0}
    swept = json.loads((folder / "out" / "cells" / PAIR / "sskd-ss5-seed0" / "config.json").read_text())
    assert swept["stages"][-1]["loss"]["ss"] == 5.0


def test_transfer_ratio_and_presets_share_cells(folder: Path) -> None:
    study(folder, "presets", "--names", "[released]")
    found, trained, text = study(folder, "transfer-ratio", "--ratios", "[0, 0.75]", "--terms", "[ss]")
    assert trained == ["sskd-ratio_ss0-seed0"], "0.75 is as usual: the cell is there"
    assert points(found, "ss")[0.75]["mean"] == accuracy(folder, "sskd-seed0")
    found, trained, _ = study(folder, "presets", "--names", "[released, arxiv]")
    assert trained == ["sskd-preset-arxiv-seed0"] and found["x"]["values"] == ["released", "arxiv"]
    assert "| share of wrong answers passed on | ss |" in text and "| 75 % |" in text


def test_pretexts_and_transformations(folder: Path) -> None:
    found, trained, text = study(folder, "pretexts")
    assert {"sskd-pretext-rotation-seed0", "sskd-pretext-jigsaw-seed0", "sskd-pretext-exemplar-seed0"} <= {*trained}
    heads = {x: point["head"] for x, point in points(found, "SSKD").items()}
    assert all(0 <= head["accuracy"] <= 100 for head in heads.values())
    assert heads["rotation"]["on"] == "test" and heads["exemplar"]["on"] == "fresh"
    assert "head right" in text and "| jigsaw |" in text
    found, trained, _ = study(folder, "transformations", "--names", "[rotation, crop_resize, all]")
    assert trained[-2:] == ["sskd-transformations-crop_resize-seed0", "sskd-transformations-all-seed0"]
    assert [*points(found, "SSKD")] == ["rotation", "crop_resize", "all"]


def test_gaps_and_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not there is a gap; the change from first to last is that of the seeds that both have."""
    recipe = write_recipe(tmp_path, methods={"kd": {}, "sskd": {}}, seeds=[0, 1])
    cells = tmp_path / "out" / "cells" / PAIR
    for name, last in (("kd-seed0", 0.6), ("kd-seed1", 0.7), ("kd-noise0.5-seed0", 0.5)):
        fake_run(cells / name, last)
    words = ["noisy-labels", "--recipe", str(recipe), "--out", str(tmp_path / "out"), "--noises", "[0, 0.5]"]
    assert main(["study", *words, "--only_table", "true"]) == 0
    assert "| kd | 65.00 ± 7.07 | 50.00 (1 of 2) | -10.00 |" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "noisy-labels" / "study.json").read_text())
    assert found["series"][0]["points"][0]["values"] == {"0": 60.0, "1": 70.0}
    empty = found["series"][1]["points"][0]
    assert (empty["n"], empty["of"], empty["mean"], empty["values"]) == (0, 2, None, {})
    fake_run(cells / "kd-pair-flip0.3-seed0", 0.55)
    assert main(["study", *words, "--pair_flips", "[0.3]", "--methods", "[kd]", "--only_table", "true"]) == 0
    shown = capsys.readouterr().out
    assert "| 0 % | 30 % | 50 % | first to last |" in shown, "columns in order, whichever series they are of"
    assert "| kd | 65.00 ± 7.07 |  | 50.00 (1 of 2) | -10.00 |" in shown, (
        "each series from its own first to its own last"
    )
    assert "| kd, pair-flip | 65.00 ± 7.07 | 55.00 (1 of 2) |  | -5.00 |" in shown


def test_one_cell_has_one_name() -> None:
    options = {"head_epochs": 1}
    for changed in ({"ratio_ss": 0.75}, {"preset": "released"}, {"ss": 10}, {"pretext": "contrastive"}, {"ce": 0.1}):
        assert variant("sskd", options, changed) == ("sskd", options)
    assert variant("sskd", options, {"transformations": ["rotation"]}) == ("sskd", options)
    assert variant("sskd", {**options, "preset": "arxiv"}, {"ss": 10.0})[0] == "sskd-ss10"
    assert variant("own", {"method": "sskd"}, {"ratio_tf": 0.5}) == (
        "own-ratio_tf0.5",
        {"method": "sskd", "ratio_tf": 0.5},
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("few-labels", "--shares", "[0]"), "fractions are shares of the training images, above 0 and up to 1"),
        (("few-labels", "--per_class", "[3]", "--same_steps", "true"), "same_steps is for shares of the images"),
        (("few-labels", "--methods", "[kdd]"), "Did you mean 'kd'"),
        (("few-labels", "--shares", "[1, 0.05]"), "A label fraction of 0.05 leaves these classes without an image"),
        (("few-labels", "--per_class", "[500]"), "--per_class 500 is more than these classes have"),
        (("noisy-labels", "--noises", "[1]"), "from 0 to below 1"),
        (("noisy-labels", "--noises", "[0.1, 0.1]"), "has 0.1 more than once"),
        (("transfer-ratio", "--ratios", "[2]"), "ratio_ss is the share of wrong rows to transfer, from 0 to 1; got 2"),
        (("presets", "--names", "[rxiv]"), "arxiv"),
        (("pretexts", "--student", "cifar_resnet9"), "cifar_resnet9"),
        (("transformations", "--recipe", "no-such"), "no bench recipe"),
        (("few-labels", "--shares", "[]"), "shares and per_class together must be a list of one or more"),
        (("few-labels", "--shares", "[1, 1]"), "has 1.0 more than once"),
        (("few-labels", "--methods", "[]"), "methods must be a list of one or more"),
        (("few-labels", "--seeds", "[]"), "seeds must be one or more"),
        (("noisy-labels", "--noises", "[]"), "noises and pair_flips together must be a list of one or more"),
        (("noisy-labels", "--noises", "[.nan]"), "from 0 to below 1"),
        (("noisy-labels", "--pair_flips", "[1.5]"), "got 'pair-flip 1.5'"),
        (("transfer-ratio", "--ratios", "[]"), "ratios must be a list of one or more"),
        (("transfer-ratio", "--terms", "[]"), "terms must be a list of one or more"),
        (("loss-terms", "--factors", "[-1]"), "factors: each must not be negative; got -1"),
        (("loss-terms", "--factors", "[.inf]"), "factors: each must be a finite number; got inf"),
        (("loss-terms", "--swept", "[tf, tf]"), "swept has 'tf' more than once"),
        (("loss-terms", "--combinations", "none", "--swept", "[]"), "swept must be a list of one or more"),
        (("presets", "--names", "[]"), "names must be a list of one or more"),
        (("pretexts", "--names", "[]"), "names must be a list of one or more"),
        (("pretexts", "--names", "[os:system]"), "os:system is not derived from sskd.views.pretext.Pretext"),
        (("pretexts", "--names", "[rotate]"), "no pretext named 'rotate'"),
        (("transformations", "--names", "[]"), "names must be a list of one or more"),
        (("transformations", "--names", "[+]"), "no transformation named ''"),
        (("transformations", "--names", "[rotation, rotation]"), "names has 'rotation' more than once"),
        (("loss-term",), "loss-terms"),
    ],
)
def test_bad_words(folder: Path, tmp_path: Path, sskd: Cli, words: tuple[str, ...], message: str) -> None:
    given = [*words[:1], "--recipe", str(folder / "tiny.yaml"), "--out", str(tmp_path / "out"), *words[1:]]
    outcome = sskd("study", *given)
    assert outcome.code == 2 and message in outcome.err, outcome.err
    assert not [*tmp_path.rglob("config.json")]  # nothing was begun
