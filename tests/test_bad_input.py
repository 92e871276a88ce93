"""What a user can get wrong: exit code 2, one line that says what was expected, what came and what to do."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from sskd.models.load import load_folder
from sskd.runs import Run
from tests.conftest import TRAINING, Cli, Outcome, write_images
from tests.interruption import SHORT, assert_refused


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def train(sskd: Cli, data: object, *words: object, model: str = "cifar_resnet8") -> Outcome:
    given = ("--model", model, "--data", str(data), "--epochs", "1", *TRAINING, *map(str, words))
    return sskd("teacher", *given)


# names and values


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        ("--student cifar_resnet9", ("no model named 'cifar_resnet9'", "Did you mean", "'cifar_resnet8'")),
        ("--method skd", ("no method named 'skd'", "Did you mean 'sskd' or 'kd' or 'hsakd'?")),
        ("--data digit", ("no data set named 'digit'", "Did you mean 'digits'?")),
        ("--data nowhere/at/all", ("There is no folder nowhere/at/all; expected a folder of class folders",)),
        ("--options.head_epoch 3", ("no option of sskd named 'head_epoch'", "'head_epochs'")),
        ("--method kd --options.head_epochs 3", ("no option of kd named 'head_epochs'", "temperature")),
        ("--method ce --options.temperature 3", ("The method ce has no options; got 'temperature'",)),
        ("--options.ratio_tf 1.5", ("ratio_tf is the share of wrong rows", "from 0 to 1; got 1.5")),
        ("--options.ratio_ss -0.5", ("ratio_ss", "got -0.5")),
        ("--options.ratio_ss many", ("The option ratio_ss of sskd takes a number; got 'many'",)),
        ("--options.head_epochs true", ("The option head_epochs of sskd takes a", "got True")),
        (
            "--options.preset paper",
            ("preset of sskd takes one of released, arxiv, supplement; got 'paper'",),
        ),
        ("--options.pretext rotate", ("no pretext named 'rotate'", "'contrastive'")),
        ("--options.pretext 3", ("The option pretext of sskd takes a name; got 3",)),
        ("--options 3", ("options",)),
        ("--epochs -1", ("epochs must not be negative; got -1",)),
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
        ("--optim.momentum 5", ("optim.momentum must be from 0 to below 1; got 5.0",)),
        ("--optim.weight_decay -1", ("optim.weight_decay must not be negative; got -1",)),
        ("--optim.lr .inf", ("optim.lr must be a finite number; got inf",)),
        ("--optim.gamma .nan", ("optim.gamma must be a finite number; got nan",)),
        ("--optim.milestones [0.9,0.1]", ("optim.milestones must rise; got [0.9, 0.1]",)),
        ("--checkpoint_every .nan", ("checkpoint_every must be a finite number; got nan",)),
        ("--scale [0.5,0.1]", ("scale is the lowest and highest share", "got [0.5, 0.1]")),
        ("--noise 1", ("The noise is 1.0; expected the share of wrong labels, from 0 to below 1",)),
        ("--per_class 0", ("per_class is 0; expected the number of images of each class, at least 1",)),
        ("--threads 100000000", ("threads must be at most", "got 100000000")),
        ("--workers 100000000", ("workers must be at most", "got 100000000")),
        ("--size 0", ("size must be from 1 to 10000; got 0",)),
        ("--teacher_size 0", ("teacher_size must be from 1 to 10000; got 0",)),
        ("--teacher=", ("teacher is empty. Give it a value, or leave it out",)),
        ("--validation -1", ("validation must not be negative; got -1",)),
        ("--validation 60", ("--validation is 60.0", "a number of images below 60")),
        ("--validation 7.5", ("--validation is 7.5; from 1 on it is a number of images, which must be whole",)),
        ("--validation 2", ("holds out 2 images; these classes get no validation image: ", "'1' (19 images)")),
        ("--precision fp8", ('"precision"', "'auto', 'fp32', 'bf16', 'fp64'", "fp8")),
        ("--channels_last maybe", ('"channels_last"', "maybe")),
        ("--optim.lr fast", ('"optim.lr"', "fast")),
        ("--optim.schedule linear", ('"optim.schedule"', "'step', 'onecycle', 'cosine'", "linear")),
        ("--device tpu", ("The device 'tpu' is not one that training runs on: auto, cpu, cuda or cuda:N",)),
        ("--device meta", ("The device 'meta' is not one that training runs on",)),
        ("--device cuda:99", ("The device 'cuda:99' cannot be used", "Try --device auto")),
        ("--padding 8", ("padding 8 can shift images of 8x8 pixels out of sight",)),
        ("--teacher_architecture cifar_vgg8", ("teacher holds a cifar_resnet8, not a cifar_vgg8",)),
        ("--student local-dir:nowhere", ("nowhere/config.json is missing or damaged", "No such file")),
        ("--student resnet18.nothing", ("resnet18.nothing cannot be built", "Invalid pretrained tag")),
        ("--batchsize 3", ("unrecognized arguments: --batchsize 3. Did you mean --batch_size?",)),
        ("--optim.momentun 0.9", ("--optim.momentun", "Did you mean --optim.momentum")),
        ("stray", ("unrecognized arguments: stray. See sskd distill --help.",)),
        ("--config nowhere.yaml", ("File does not exist", "nowhere.yaml")),
        ("--teacher nowhere", ("There is no network at nowhere. Give a run directory,",)),
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
        (
            "",
            (
                "say which command: demo, teacher, distill, check, evaluate, predict, export, bench, probe, "
                "similarity, inspect, study, report, data, list.",
                "See sskd --help.",
            ),
        ),
        ("list", ("models,methods,data",)),
        ("teach", ("invalid choice: 'teach'", "'teacher'")),
        ("teacher --data digits", ("Say which network: --model NAME, or --init WEIGHTS",)),
        ("teacher --data digits --model=", ("model is empty. Give it a value, or leave it out",)),
        ("evaluate --network x --data digits --size -3", ("size must be from 1 to 10000; got -3",)),
        ("evaluate --network x --data digits --size 0", ("size must be from 1 to 10000; got 0",)),
        ("check --student x --data digits --price -3", ("price must not be negative; got -3",)),
        ("check --student x --data digits --price .nan", ("price must be a finite number; got nan",)),
        ("demo --seeds -1", ("seeds must be at least 1; got -1",)),
        ("demo --epochs -2", ("epochs must be at least 1; got -2",)),
        ("bench digits-small --seeds []", ("seeds must be a list of one or more",)),
        ("bench digits-small --methods []", ("methods must be a list of one or more",)),
        ("bench digits-small --processes 100000", ("processes must be at most",)),
        ("bench digits-small --out=", ("out is empty",)),
        ("probe pixels --data digits --size -3", ("size must be from 1 to 10000; got -3",)),
        ("export x --out=", ("out is empty",)),
        ("inspect .", (". is no run directory. Give one that `sskd distill` or `sskd teacher` has written",)),
        ("distill", ("required: --student, --data. See sskd distill --help.",)),
        ("data check", ("required: --data. See sskd data check --help.",)),
        ("data", ("to be one of {check}, but it was not provided. See sskd data --help.",)),
        ("list models --wide", ("unrecognized arguments: --wide",)),
        ("evaluate --network nowhere --data digits", ("There is no network at nowhere",)),
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
    assert_refused(refused, "are 8x12 (height x width)", "--reading.square crop")
    cropped = train(sskd, folder, "--out", tmp_path / "run", "--validation", "0", "--reading.square", "crop")
    assert cropped.code == 0
    assert_refused(sskd("evaluate", "--network", tmp_path / "run", "--data", folder), "--reading.square crop")
    assert sskd("evaluate", "--network", tmp_path / "run", "--data", folder, "--reading.square", "crop").code == 0


def test_images_too_small_for_the_network(sskd: Cli, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", pictures(8, 2, 2), [0, 1] * 4)
    refused = train(sskd, folder, "--out", tmp_path / "run", "--validation", "0", "--padding", "0", model="cifar_vgg8")
    assert_refused(refused, "cifar_vgg8 cannot take images of 1x2x2", "Choose a shallower network or larger images")


# teachers


def test_teacher_of_other_classes(sskd: Cli, teacher: Path, tmp_path: Path) -> None:
    words = ("--student", "cifar_resnet8", "--data", "digits", "--teacher", teacher, "--out", tmp_path / "run")
    refused = sskd("distill", *words)
    assert_refused(refused, "knows 3 classes (0, 1, 2), the data digits has 10", "only the data has: 3, 4, 5")
    assert not (tmp_path / "run").exists()


def test_teacher_with_classes_in_another_order(
    distil: Cli, sskd: Cli, few: Path, teacher: Path, tmp_path: Path
) -> None:
    config = (teacher / "student" / "config.json").read_text()
    shutil.copytree(teacher / "student", tmp_path / "teacher")
    names = load_folder(teacher / "student").class_names
    network = tmp_path / "teacher" / "config.json"
    start = config.index("[", config.index('"label_names"'))
    network.write_text(config[:start] + '["1", "0", "2"' + config[config.index("]", start) :])
    assert load_folder(tmp_path / "teacher").class_names == ("1", "0", "2") != names
    done = distil("--teacher", tmp_path / "teacher", "--out", tmp_path / "run", *SHORT)
    assert done.code == 0 and "classes in another order (1, 0, 2); they are matched by name" in done.out
    # named as they are, they are all known; with two names exchanged, two are mistaken for each other
    networks = (teacher, tmp_path / "teacher")
    right, wrong = (sskd("evaluate", "--network", network, "--data", few) for network in networks)
    assert "top1" in right.out and re.findall("top1.*", right.out) != re.findall("top1.*", wrong.out)


def test_teacher_for_other_channels(sskd: Cli, teacher: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", pictures(9, 8, 8, 3), [0, 1, 2] * 3)
    words = ("--student", "cifar_resnet8", "--data", folder, "--teacher", teacher, "--out", tmp_path / "run")
    assert sskd("distill", *words, "--validation", "0", *SHORT, *TRAINING).code == 0
    assert load_folder(teacher / "student").channels == 1 and load_folder(tmp_path / "run" / "student").channels == 3


def test_weights_of_another_architecture(distil: Cli, teacher: Path, tmp_path: Path) -> None:
    weights = teacher / "student" / "model.safetensors"
    out = ("--out", tmp_path / "run", "--teacher", weights)
    assert_refused(distil(*out), "holds weights alone", "--teacher_architecture NAME")
    asked = distil(*out, "--teacher_architecture", "resnet8")
    assert_refused(asked, "does not say how resnet8 wants its images normalised", "--teacher_mean", "--teacher_std")
    told = (*out, "--teacher_mean", "[0.5]", "--teacher_std", "[0.2]")
    refused = distil(*told, "--teacher_architecture", "resnet14")
    assert_refused(refused, "not of cifar_resnet14", "Keys missing: layer1.1.bn1.bias", "and 25 more")
    assert_refused(distil(*told, "--teacher_architecture", "resnet8x"), "no model named 'resnet8x'", "Did you mean")


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
