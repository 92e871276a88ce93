"""A part of a data set's classes."""

import json
from pathlib import Path

import pytest
import torch

from sskd.bench.recipe import load_recipe
from sskd.data import load_source
from sskd.errors import UserError
from sskd.reading import Reading
from tests.conftest import TRAINING, Cli, in_memory


def test_classes_are_taken_by_name_and_numbered_anew() -> None:
    whole, part = load_source("digits"), load_source("digits", Reading(classes=("7", "2", "9")))
    assert part.class_names == ("7", "2", "9") and part.notes[-1] == "Of the 10 classes of digits 3 are used."
    for all_of, some_of in ((whole.train, part.train), (whole.test, part.test)):
        there, images = in_memory(all_of), in_memory(some_of)
        for number, name in enumerate(part.class_names):
            expected = there.pixels[there.labels == int(name)]
            assert torch.equal(images.pixels[images.labels == number], expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("1", "l"), "no class of digits named 'l'"),
        (("1", "2", "1"), "names a class twice: 1, 1"),
        (("1",), "needs at least 2"),
    ],
)
def test_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_source("digits", Reading(classes=names))


def test_probe_of_classes_that_were_never_seen(sskd: Cli, tmp_path: Path) -> None:
    seen = ("--reading.classes", '["0","1","2","3","4"]', "--fraction", "0.1", "--epochs", "1", "--validation", "0")
    words = ("--data", "digits", "--student", "cifar_resnet8", "--method", "ce", "--out", tmp_path / "run")
    assert sskd("distill", *words, *seen, *TRAINING).code == 0
    done = sskd("probe", tmp_path / "run", "--data", "digits", "--reading.classes", '["5","6","7","8","9"]')
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "run/analyses/probe-digits-5-classes.json").read_text())
    assert found["classes"] == 5 and found["protocol"]["training_images"] < 600 and found["linear"]["top1"] > 0.3


def test_held_out_classes_of_the_recipe() -> None:
    recipe = load_recipe("cifar100-held-out")
    text = (Path(__file__).parent.parent / "recipes/cifar100-held-out/probe.yaml").read_text()
    held_out = {name.strip(" ]\n") for name in text.partition("[")[2].split(",")}
    assert len(held_out) == 20 and len({*recipe.reading["classes"]} | held_out) == 100
