"""Which folders are splits and which are classes: by name, checked against what they hold, else asked."""

from pathlib import Path

import pytest
from PIL import Image

from sskd.data import load_source
from sskd.data.layout import split_of
from sskd.errors import UserError
from sskd.reading import Reading


def write(root: Path, *folders: str, count: int = 2) -> Path:
    """Folders with some small images each, which differ between folders."""
    for k, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (40 * k, 10 * i, 90)).save(root / folder / f"{i}.png")
    return root


def counts(root: Path, reading: Reading = Reading()) -> tuple[tuple[str, ...], list[int]]:  # noqa: B008  # frozen
    source = load_source(str(root), reading)
    parts = (source.train, source.validation, source.test)
    return source.class_names, [0 if part is None else len(part) for part in parts]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("train", "valid"),
        ("training", "validation"),
        ("seg_train", "seg_test"),
        ("train_set", "test_set"),
        ("Training Data", "Testing Data"),
        ("train2017", "val2017"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("Train/train", "Test/test"),
    ],
)
def test_splits_in_any_case_and_by_common_names(train: str, test: str, tmp_path: Path) -> None:
    write(tmp_path, f"{train}/cat", f"{train}/dog", f"{test}/cat", f"{test}/dog")
    assert counts(tmp_path) == (("cat", "dog"), [4, 0, 4])


def test_unlabelled_images_beside_the_splits_are_left_out_and_said(tmp_path: Path) -> None:
    names = [f"seg_{kind}/seg_{kind}/{name}" for kind in ("train", "test") for name in ("sea", "street")]
    write(tmp_path, *names, "seg_pred/seg_pred")
    source = load_source(str(tmp_path))
    assert source.class_names == ("sea", "street") and len(source.test) == 4
    assert any("folders left out: seg_pred" in note for note in source.notes)


def test_a_test_folder_without_class_folders_is_left_out_and_said(tmp_path: Path) -> None:
    write(tmp_path, "train/cat", "train/dog", "test", count=5)
    source = load_source(str(tmp_path))
    assert [len(source.train), len(source.test)] == [8, 2]
    assert any("test of" in note and "has no class folders, so it is left out" in note for note in source.notes)


def test_a_class_that_is_called_train(tmp_path: Path) -> None:
    write(tmp_path, "boat", "car", "train", count=5)
    source = load_source(str(tmp_path))
    assert source.class_names == ("boat", "car", "train")
    assert any("train of" in note and "taken as a class, not as a split" in note for note in source.notes)


def test_two_readings_of_a_training_folder_are_asked_about(tmp_path: Path) -> None:
    write(tmp_path, "boat", "car", "train/steam", "train/electric", count=5)
    with pytest.raises(UserError, match=r"two ways: train is the .*--reading\.train train .*--reading\.train \. for"):
        load_source(str(tmp_path))
    assert counts(tmp_path, Reading(train="train")) == (("electric", "steam"), [8, 0, 2])
    assert counts(tmp_path, Reading(train=".")) == (("boat", "car", "train"), [16, 0, 4])


def test_two_readings_of_a_test_folder_are_asked_about(tmp_path: Path) -> None:
    write(tmp_path, "cat", "dog", "test/cat", "test/dog", count=5)
    with pytest.raises(UserError, match=r"two ways: test is a test split .*--reading\.train \. --reading\.test test"):
        load_source(str(tmp_path))
    assert counts(tmp_path, Reading(train=".", test="test")) == (("cat", "dog"), [10, 0, 10])
    assert counts(tmp_path, Reading(test="test")) == (("cat", "dog"), [10, 0, 10])
    assert counts(tmp_path, Reading(train=".")) == (("cat", "dog", "test"), [16, 0, 4])


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("val/cat", "val/dog", "test/cat", "test/dog"), r"the folders test, val, but no training folder"),
        (("train", "test"), r"test, train of .* hold images, but no class folders; .*--reading\.train \."),
        (("train/a", "train/b", "Training/a", "Training/b"), r"Training, train of .* may each be the training images"),
        (
            ("train/a", "train/b", "val/a", "val/b", "valid/a", "valid/b", "test/a", "test/b"),
            r"val, valid of .* are several splits of one kind",
        ),
        (
            ("data/cat", "data/dog"),
            r"holds one class folder, data; .*If the class folders lie deeper, say --data .*data",
        ),
    ],
)
def test_what_is_asked(folders: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_source(str(write(tmp_path, *folders)))


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (("a/train", "a/test", "b/train", "b/test"), r"a, b are the classes, .* test, train belong"),
        (
            ("images/train", "images/val", "labels/train", "labels/val"),
            r"images, labels are the classes, .* train, val",
        ),
        (("data/seg_train/a", "data/seg_train/b", "data/seg_test/a", "data/seg_test/b"), r"data are the classes, "),
    ],
)
def test_splits_inside_classes_are_asked_about(folders: tuple[str, ...], named: str, tmp_path: Path) -> None:
    root = write(tmp_path, *folders)
    with pytest.raises(UserError, match=rf"two ways: {named}.*--reading\.train \. \(.*/SPLIT/CLASS, or name .*--data"):
        load_source(str(root))


def test_the_ways_out_of_splits_inside_classes(tmp_path: Path) -> None:
    root = write(tmp_path / "one", "a/train", "a/test", "b/train", "b/test", count=5)
    assert counts(root, Reading(train=".")) == (("a", "b"), [16, 0, 4])
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "linked" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "linked" / split / name).symlink_to(root / name / split)
    assert counts(tmp_path / "linked") == (("a", "b"), [10, 0, 10])
    write(root, "b", count=1)
    assert counts(root) == (("a", "b"), [17, 0, 4]), "images beside the folders: a class"


def test_the_validation_split_may_be_named_as_test(tmp_path: Path) -> None:
    write(tmp_path, *(f"{split}/{name}" for split in ("train", "val", "test") for name in ("a", "b")))
    assert counts(tmp_path) == (("a", "b"), [4, 4, 4])
    assert counts(tmp_path, Reading(test="val")) == (("a", "b"), [4, 0, 4])


def test_a_plain_folder_of_images(tmp_path: Path) -> None:
    write(tmp_path / "photos", ".")
    with pytest.raises(UserError, match=r"holds 2 images but no folders, .*: photos/CLASS/0\.png"):
        load_source(str(tmp_path / "photos"))


def test_names_of_splits() -> None:
    assert split_of("Training") == ("train", "*")
    assert split_of("seg_test") == ("test", "seg_*")
    assert split_of("imagenet1k-train-0001") == split_of("imagenet1k-TRAIN-0001") == ("train", "imagenet1k-*-0001")
    assert [split_of(name) for name in ("boat", "train-test", "trainer", "latest", "")] == [None] * 5


def test_folders_and_other_families_beside_each_other_are_asked_about(tmp_path: Path) -> None:
    write(tmp_path, "cat", "dog", count=5)
    (tmp_path / "backup.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds backup\.tar and cat, dog, .*--data shards:.* or --data folder:"):
        load_source(str(tmp_path))
    assert counts_of_family("folder", tmp_path) == [8, 2]


def counts_of_family(family: str, root: Path) -> list[int]:
    source = load_source(f"{family}:{root}")
    return [len(source.train), len(source.test)]
