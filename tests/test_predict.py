"""Labels for files, the model card, and the look at a data set: what engineers see of what they got."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
from PIL import Image

from sskd.data import load_source
from sskd.data.check import check, contact_sheet
from sskd.reading import Reading
from tests.conftest import TRAINING, Cli, in_memory
from tests.photographs import CLASSES, write_oddities, write_photographs, write_unreadable


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("predict") / "photographs", {"train": 24, "test": 8})


@pytest.fixture
def run(sskd: Cli, photographs: Path, tmp_path: Path) -> Path:
    words = ("--data", photographs, "--model", "cifar_resnet8", "--size", "32", "--epochs", "6", "--scale", "[0.5,1]")
    done = sskd("teacher", *words, "--out", tmp_path / "run", *TRAINING)
    assert done.code == 0, done.err
    return tmp_path / "run"


def test_labels_are_those_of_the_evaluation(sskd: Cli, run: Path, photographs: Path) -> None:
    done = sskd("predict", "--run", run, photographs / "test", "--format", "csv")
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert len(rows) == 16 and {row["rank"] for row in rows} == {"1"}
    right = sum(Path(row["path"]).parent.name == row["label"] for row in rows)
    result = json.loads((run / "result.json").read_text())
    assert right / 16 == pytest.approx((result["best"] or result["last"])["test"]["top1"])
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)


def test_small_images_are_taken_as_they_are(sskd: Cli, teacher: Path, few: Path, tmp_path: Path) -> None:
    test = load_source(str(few)).test
    for i in range(len(test)):
        Image.fromarray(test.pixels[i, 0].numpy()).save(tmp_path / f"{i:02}.png")  # type: ignore[union-attr]
    done = sskd("predict", "--run", teacher, tmp_path, "--format", "json", "--top", "3")
    found = json.loads(done.out)
    assert len(found) == 90 and [one["rank"] for one in found[:3]] == [1, 2, 3]
    assert all(sum(one["probability"] for one in found[i : i + 3]) == pytest.approx(1, abs=1e-5) for i in (0, 3, 87))
    right = sum(int(one["label"]) == test.labels[i] for i, one in enumerate(found[::3]))
    assert right / 30 == pytest.approx(json.loads((teacher / "result.json").read_text())["last"]["test"]["top1"])


def test_nothing_is_no_path(sskd: Cli, teacher: Path) -> None:
    """An empty variable of a shell would label the working directory."""
    for words, said in ((("",), "A path among the images is empty"), (("x.png", "--out", ""), "out is empty")):
        done = sskd("predict", "--run", teacher, *words)
        assert done.code == 2 and said in done.err


def test_table_files_and_odd_images(sskd: Cli, run: Path, tmp_path: Path) -> None:
    write_oddities(tmp_path)
    done = sskd("predict", "--run", run, *sorted(tmp_path.iterdir())[:3], tmp_path / "turned.jpeg")
    assert done.code == 0 and done.out.count("%") == 4 and "probability" in done.out
    write_unreadable(tmp_path)
    refused = sskd("predict", "--run", run, tmp_path)
    assert refused.code == 2 and "2 of 7 images cannot be decoded" in refused.err and "--unreadable skip" in refused.err
    out = tmp_path / "deep" / "labels.csv"
    done = sskd("predict", "--run", run, tmp_path, "--unreadable", "skip", "--format", "csv", "--out", out)
    assert done.code == 0 and done.err.count("sskd: skipped: ") == 3 and done.out == ""
    assert "no images of a kind that can be read: 3 .json" in done.err, "the run lies in this folder, too"
    assert len(out.read_text().splitlines()) == 1 + 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.jpg",), "There is no file or folder nowhere.jpg"),
        ((".",), "There are no images in .; looked for files ending in .jpg"),
        (("nowhere.jpg", "--top", "3"), "There is no file or folder"),
        ((), "required: --images"),
    ],
)
def test_refused(
    words: tuple[str, ...], message: str, sskd: Cli, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = sskd("predict", "--run", teacher, *words)
    assert refused.code == 2 and message in refused.err


def test_top_is_at_most_the_number_of_classes(sskd: Cli, teacher: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    refused = sskd("predict", "--run", teacher, tmp_path / "a.png", "--top", "4")
    assert refused.code == 2 and "top is a number of classes, from 1 to 3; got 4" in refused.err


def test_model_card(sskd: Cli, run: Path, photographs: Path, tmp_path: Path) -> None:
    words = ("--data", photographs, "--student", "resnet10t", "--size", "32", "--fraction", "0.5", "--teacher", run)
    quick = ("--epochs", "1", "--options.head_epochs", "1", *TRAINING)
    assert sskd("distill", *words, "--out", tmp_path / "student", *quick).code == 0
    card = (tmp_path / "student" / "student" / "README.md").read_text()
    result = json.loads((tmp_path / "student" / "result.json").read_text())
    saved = result["best"] or result["last"]
    assert f"**{saved['test']['top1']:.2%}**" in card and "on the 16 test images of photographs" in card
    for fragment in (
        "# resnet10t, distilled with sskd",
        "photographs: 22 training images of 43",
        "| teacher | cifar_resnet8, weights ",
        "| method | sskd, seed 0, 1 epochs |",
        '"head_epochs": 1',
        "| classes | 2: building, flower |",
        "| input | 3x32x32, mean 0.485, 0.456, 0.406",
        "license: other  # to fill in",
        "pipeline_tag: image-classification",
    ):
        assert fragment in card
    assert "import sskd" not in card, "timm knows this one by itself"
    assert "import sskd" in (run / "student" / "README.md").read_text()
    loaded: Any = timm.create_model(f"local-dir:{tmp_path}/student/student", pretrained=True)
    assert loaded.pretrained_cfg["crop_pct"] == pytest.approx(7 / 8, abs=0.02)


def test_data_check(sskd: Cli, photographs: Path, tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "data", {"train": 5, "test": 3})
    write_oddities(folder / "train" / "flower")
    write_unreadable(folder / "train" / "flower")
    (folder / "test" / "flower" / "copy.jpg").write_bytes((folder / "train" / "flower" / "001.jpg").read_bytes())
    (folder / "train" / "building" / "again.jpg").write_bytes((folder / "train" / "building" / "001.jpg").read_bytes())
    done = sskd("data", "check", "--data", folder, "--sheet", tmp_path / "sheet.png")
    assert done.code == 0, done.err
    for fragment in (
        "Skipped 2 of 18 train images: ",
        "Modes: RGB 19, ",
        "DUPLICATES between train and test: 1: ",
        f"{folder}/train/flower/001.jpg = {folder}/test/flower/copy.jpg",
        f"Duplicates within train, 1 too many: {folder}/train/building/001.jpg = {folder}/train/building/again.jpg",
        "Suggested: --size 32: the median of the shorter sides is ",
        "Suggested: --validation 0: the smallest class has 6 training images",
        "Suggested: --batch_size 4: there are 16 training images in all",
        "Suggested: remove the duplicates between splits",
    ):
        assert fragment in done.out, done.out
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (512, 156) and len(sheet.getcolors(1 << 20) or []) > 500, "two rows with pictures in them"
    clean = check(str(photographs), Reading())
    assert not clean.duplicates and clean.repeated == {"train": [], "test": []}
    assert clean.counts == {"train": [24, 24], "test": [8, 8]} and clean.source.class_names == CLASSES


def test_data_check_names_small_images_by_file(sskd: Cli, tmp_path: Path) -> None:
    for kind, grey in (("cat", 9), ("dog", 200)):
        for i in range(3):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.new("L", (8, 8), grey + i % 2).save(tmp_path / kind / f"{i}.png")
    done = sskd("data", "check", "--data", tmp_path, "--reading.test_share", "0.01")
    assert done.code == 0 and f"{tmp_path}/cat/0.png = {tmp_path}/cat/2.png" in done.out, done.out
    assert sskd("data", "check", "--data", tmp_path, "--reading.stream", "true").code == 2
    assert "required: --data. See" in sskd("data", "check").err


def test_predict_takes_what_training_takes(sskd: Cli, teacher: Path, tmp_path: Path) -> None:
    """Hidden files and pipes are left out and said; a pipe alone is refused."""
    photos = tmp_path / "photos"
    (photos / "@eaDir").mkdir(parents=True)
    for name in ("a.png", "._a.png", "@eaDir/b.png"):
        Image.new("L", (8, 8)).save(photos / name)
    os.mkfifo(photos / "pipe.png")
    done = sskd("predict", "--run", teacher, photos, "--format", "json")
    assert done.code == 0 and [one["path"] for one in json.loads(done.out)] == [str(photos / "a.png")]
    assert "skipped: photos: Left out, hidden: ._a.png, @eaDir." in done.err
    assert "broken links): pipe.png." in done.err
    refused = sskd("predict", "--run", teacher, photos / "pipe.png")
    assert refused.code == 2 and "pipe.png is no regular file (a pipe, a device)" in refused.err


def test_data_check_of_images_in_memory(sskd: Cli) -> None:
    done = sskd("data", "check", "--data", "digits")
    assert done.code == 0 and "all 32x32" in done.out and "No duplicates" in done.out
    digits = load_source("digits")
    assert contact_sheet(in_memory(digits.train), digits.class_names).startswith(b"\x89PNG")
