"""Wrong labels: how many, which, the same again, stored as used, and never where accuracy is measured."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sskd.bench.task import Task, changed
from sskd.data import load_source
from sskd.data.noise import NoiseKind, noisy_labels
from sskd.data.source import info
from sskd.data.splits import cut
from sskd.data.subsets import label_count
from sskd.errors import UserError
from sskd.runs import Run
from tests.conftest import TRAINING, Cli
from tests.test_subsets import labels_of, names_of


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["symmetric", "pair-flip"])
def test_the_exact_share_is_wrong(noise: float, kind: NoiseKind) -> None:
    counts = (100, 217, 50, 333, 41)
    labels, total = labels_of(*counts), sum(counts)
    noisy = noisy_labels(labels, noise, kind, 3, names_of(5))
    wrong = noisy != labels
    assert int(wrong.sum()) == round(noise * total)
    by_class = labels[wrong].bincount(minlength=5)
    assert ((by_class - torch.tensor(counts) * int(wrong.sum()) / total).abs() < 1).all()
    assert int(noisy.min()) >= 0 and int(noisy.max()) <= 4
    if kind == "pair-flip":
        assert torch.equal(noisy[wrong], (labels[wrong] + 1) % 5)


def test_symmetric_noise_is_even_over_the_other_classes() -> None:
    labels = torch.zeros(8000, dtype=torch.int64)
    labels[:4] = torch.arange(1, 5)
    noisy = noisy_labels(labels, 0.5, "symmetric", 0, names_of(5))
    drawn = noisy[(noisy != labels) & (labels == 0)].bincount(minlength=5)
    assert drawn[0] == 0 and ((drawn[1:] - 1000).abs() < 100).all()


def test_noise_depends_on_the_seed_alone_and_grows() -> None:
    labels = labels_of(40, 60, 100)
    torch.manual_seed(1)
    some, more = (noisy_labels(labels, noise, "symmetric", 5, "abc") for noise in (0.2, 0.5))
    torch.manual_seed(2)
    assert torch.equal(noisy_labels(labels, 0.2, "symmetric", 5, "abc"), some)
    assert not torch.equal(noisy_labels(labels, 0.2, "symmetric", 6, "abc"), some)
    changed = some != labels
    assert torch.equal(more[changed], some[changed])
    assert noisy_labels(labels, 0, "symmetric", 5, "abc") is labels


def test_noise_refuses() -> None:
    for noise in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="expected the share of wrong labels, from 0 to below 1"):
            noisy_labels(labels_of(5, 5), noise, "symmetric", 0, "ab")
    with pytest.raises(UserError, match=r"no noise kind named 'pairflip'\. Did you mean 'pair-flip'"):
        noisy_labels(labels_of(5, 5), 0.2, "pairflip", 0, "ab")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"at least two classes.*all are of 'a' \(5 images\)"):
        noisy_labels(labels_of(5), 0.2, "symmetric", 0, "ab")


def test_a_number_of_each_class() -> None:
    labels = labels_of(10, 40, 25)
    index = label_count(labels, 7, 3, "abc")
    assert labels[index].bincount().tolist() == [7, 7, 7] and torch.equal(index, index.sort().values)
    with pytest.raises(UserError, match=r"--per_class 11 is more than these classes have: 'a' \(10 images\)"):
        label_count(labels, 11, 3, "abc")
    with pytest.raises(UserError, match="per_class is 0; expected"):
        label_count(labels, 0, 3, "abc")


def test_validation_labels_beside_few_training_labels_are_said(few: Path) -> None:
    source = load_source(str(few))
    splits = cut(source, None, 0.5, 0)
    spent = len(splits.evaluation["validation"])
    assert splits.notes == (
        f"{len(splits.train)} training labels, {spent} validation labels: --validation 0 spends none of these, and the "
        "last epoch counts.",
    )
    assert spent == 6 and len(splits.train) == 27
    assert cut(source, None, 1.0, 0).notes == () == cut(source, 12, 0.5, 0).notes == cut(source, 0, 0.5, 0).notes


def test_what_is_cut_with_noise(few: Path) -> None:
    """Shares are the same at every noise, wrong labels the same for every share; what measures has right ones."""
    source = load_source(str(few))
    whole, plain, noisy = cut(source, 12, 1, 0, None, 0.5), cut(source, 12, 0.5, 0), cut(source, 12, 0.5, 0, None, 0.5)
    assert plain.share is not None and noisy.share is not None and torch.equal(plain.share, noisy.share)
    assert torch.equal(whole.full.labels, noisy.full.labels) and torch.equal(
        whole.full.labels[noisy.share], noisy.train.labels
    )
    assert int((whole.full.labels != plain.full.labels).sum()) == whole.wrong == 24
    assert noisy.wrong == int((noisy.train.labels != plain.train.labels).sum())
    for name in ("validation", "test"):
        assert torch.equal(noisy.evaluation[name].labels, plain.evaluation[name].labels)
    assert torch.equal(info(source, noisy.train, (1, 8, 8)).labels, noisy.train.labels)
    for images in (plain, whole):
        assert torch.equal(images.seen("full", "clean").labels, plain.full.labels)
    assert torch.equal(noisy.seen("subset", "clean").labels, plain.train.labels)
    assert torch.equal(noisy.seen("subset", "noisy").labels, noisy.train.labels)
    assert noisy.train.fingerprint() != plain.train.fingerprint()


def test_stored_is_used(distil: Cli, few: Path, teacher: Path, tmp_path: Path) -> None:
    run, words = tmp_path / "run", ("--method", "kd", "--epochs", "1", "--fraction", "0.5", "--validation", "12")
    done = distil(*words, "--noise", "0.25", "--out", run)
    assert done.code == 0, done
    kept, config = load_file(run / "labels.safetensors"), json.loads((run / "config.json").read_text())
    source = load_source(str(few))
    splits = cut(source, 12, 0.5, 0, None, 0.25)
    labels = source.train.labels.clone()
    assert torch.equal(labels[kept["changed"]], kept["clean"]) and (kept["clean"] != kept["noisy"]).all()
    labels[kept["changed"]] = kept["noisy"]
    assert torch.equal(labels[kept["train"]], splits.train.labels)
    assert config["data"]["train_fingerprint"] == splits.train.fingerprint()
    told = config["labels"]
    assert told["sha256"] == hashlib.sha256((run / "labels.safetensors").read_bytes()).hexdigest()
    assert told["student"] == {"images": 24, "wrong_labels": splits.wrong} and told["noise"] == 0.25
    assert told["shared_stages"] == {"images": 48, "labels": "clean"}
    assert told["teacher"]["images"] == 60 and told["teacher"]["noise"] == 0
    said = f"{splits.wrong} of 24 training images have a wrong label (symmetric noise)"
    assert said in done.out + done.err and said in " ".join(config["notes"])
    assert f"{splits.wrong} of them with a wrong label on purpose" in (run / "student" / "README.md").read_text()
    other = distil(*words, "--noise", "0.5", "--out", run)
    assert other.code == 2 and "training.noise: 0.25 there, 0.5 now" in other.err


def test_a_teacher_of_few_and_wrong_labels(sskd: Cli, distil: Cli, few: Path, tmp_path: Path) -> None:
    """What it saw is stated by its students; the head sees the noise where that is asked for."""
    taught = tmp_path / "teacher"
    words = ("--fraction", "0.5", "--noise", "0.25", "--noise_kind", "pair-flip", "--validation", "0", "--epochs", "1")
    done = sskd("teacher", "--data", few, "--model", "cifar_resnet8", "--out", taught, *words, *TRAINING)
    assert done.code == 0 and (taught / "labels.safetensors").exists(), done
    own = ("--method", "hsakd", "--options.branch_epochs", "1", "--teacher_data", "subset", "--teacher_labels", "noisy")
    done = distil(*words, *own, "--teacher", taught, "--out", tmp_path / "run")
    assert done.code == 0, done
    told = json.loads((tmp_path / "run" / "config.json").read_text())["labels"]
    assert told["shared_stages"] == {"images": 30, "labels": "noisy"}
    assert told["teacher"] == {
        "data": "few",
        "images": 30,
        "fraction": 0.5,
        "per_class": None,
        "noise": 0.25,
        "noise_kind": "pair-flip",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--noise 1", "expected the share of wrong labels, from 0 to below 1"),
        ("--noise -0.5", "expected the share of wrong labels"),
        ("--per_class 3 --fraction 0.5", "both say how many images: give one"),
        ("--per_class 100", "--per_class 100 is more than these classes have"),
        ("--per_class 1 --noise 0.6 --noise_kind pair-flip", "no training image is labelled as one of these classes"),
        ("--noise_kind asymmetric", "'symmetric', 'pair-flip'"),
    ],
)
def test_bad_words(distil: Cli, tmp_path: Path, words: str, message: str) -> None:
    outcome = distil("--out", tmp_path / "run", *words.split())
    assert outcome.code == 2 and message in outcome.err and not (tmp_path / "run").exists()


def test_runs_older_than_an_argument_go_on(tmp_path: Path) -> None:
    """What their config does not say was as it is by default."""
    folder = tmp_path / "old"
    folder.mkdir()
    kept = {"network": "x", "data": "digits", "method": "ce", "training": {"epochs": 3}}
    (folder / "config.json").write_text(json.dumps({"arguments": kept}))
    now = {**kept, "training": {"epochs": 3, "noise": 0.0, "scale": (0.1, 1.0)}}
    usual = {"training": {"noise": 0.0, "scale": (0.1, 1.0), "epochs": 240}}
    Run(folder).same(now, "arguments", usual=usual)
    with pytest.raises(UserError, match=r"training.noise: 0.0 there, 0.5 now"):
        Run(folder).same({**now, "training": {**now["training"], "noise": 0.5}}, "arguments", usual=usual)  # type: ignore[dict-item]
    given = {"model": "x", "data": "digits", "epochs": 3}
    assert changed(Task("t", "teacher", folder, {**given, "noise": 0})) == ""
    assert "noise: 0.0 there, 0.5 now" in changed(Task("t", "teacher", folder, {**given, "noise": 0.5}))
