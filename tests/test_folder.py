"""Folders of class folders: which splits and classes are found, what is converted, what is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from sskd.data import load_source
from sskd.data.images import Images
from sskd.data.pictures import Pictures
from sskd.errors import UserError
from sskd.reading import Reading
from tests.photographs import CLASSES, write_oddities, write_photographs, write_unreadable


def pictures(images: object) -> Pictures:
    assert isinstance(images, Pictures)
    return images


def test_train_validation_and_test(tmp_path: Path) -> None:
    write_photographs(tmp_path / "pets", {"train": 5, "val": 2, "test": 3})
    source = load_source(str(tmp_path / "pets"))
    assert (source.name, source.class_names) == ("pets", CLASSES)
    assert source.validation is not None
    assert [len(part) for part in (source.train, source.validation, source.test)] == [10, 4, 6]
    assert source.train.labels.tolist() == [0] * 5 + [1] * 5
    assert "training images in train, test test, validation val" in source.notes[0]
    assert pictures(source.train).channels == 3 and source.mean == (0.485, 0.456, 0.406)


def test_validation_alone_is_the_test_split(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"train": 4, "val": 2})
    source = load_source(str(tmp_path))
    assert source.validation is None and len(source.test) == 4


def test_named_splits(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"before": 4, "after": 2})
    source = load_source(f"folder:{tmp_path}", Reading(train="before", test="after"))
    assert [len(source.train), len(source.test)] == [8, 4]
    with pytest.raises(UserError, match=r"has no folder 'later', only after, before\. Name one of these"):
        load_source(f"folder:{tmp_path}", Reading(train="before", test="later"))


def test_a_test_split_is_cut_off(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"": 10})
    source, again = load_source(str(tmp_path)), load_source(str(tmp_path))
    assert [len(source.train), len(source.test)] == [16, 4]
    assert torch.bincount(source.test.labels).tolist() == [2, 2]
    assert pictures(source.test).place.tolist() == pictures(again.test).place.tolist()
    assert not set(pictures(source.test).place.tolist()) & set(pictures(source.train).place.tolist())
    assert "4 of 20 images, stratified, were cut off for testing" in source.notes[-1]
    assert len(load_source(str(tmp_path), Reading(test_share=0.5)).test) == 10


def test_three_images_in_all(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"": 2})
    (tmp_path / "flower" / "001.jpg").unlink()
    source = load_source(str(tmp_path))
    assert source.train.labels.tolist() == [0, 1] and source.test.labels.tolist() == [0]
    (tmp_path / "building" / "001.jpg").unlink()
    with pytest.raises(UserError, match="no class has a second image that could be spared"):
        load_source(str(tmp_path))


def test_every_mode_is_read(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"train": 2, "test": 1})
    write_oddities(tmp_path / "train" / "flower")
    source = load_source(str(tmp_path))
    train = pictures(source.train)
    names = [Path(train.reader.name(i)).name for i in range(len(train))]
    coloured = [names.index(name) for name in ("cmyk.jpg", "turned.jpeg", "palette.png", "alpha.PNG")]
    assert {train.open(position).mode for position in coloured} == {"RGB"}
    assert train.open(names.index("grey.jpg")).mode == "L"
    stored = train.stored(16)
    assert stored.pixels.shape == (len(train), 3, 16, 16)
    upright, turned = (stored.pixels[names.index(name)].float() for name in ("cmyk.jpg", "turned.jpeg"))
    assert (upright.rot90(-1, (-2, -1)) - turned).abs().mean() < 12, "turned clockwise, as its EXIF says"
    assert (upright.rot90(1, (-2, -1)) - turned).abs().mean() > 20


def test_grey_images_alone(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"train": 3, "test": 2})
    for file in tmp_path.rglob("*.jpg"):
        Image.open(file).convert("L").save(file)
    source = load_source(str(tmp_path))
    assert pictures(source.train).channels == 1 and source.mean == (0.449,)


def test_small_images_of_one_size_are_decoded_at_once(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"train": 3, "test": 2})
    for file in tmp_path.rglob("*.jpg"):
        Image.open(file).resize((12, 12)).save(file.with_suffix(".png"))
        file.unlink()
    source = load_source(str(tmp_path))
    assert isinstance(source.train, Images) and source.train.pixels.shape == (6, 3, 12, 12)
    first = torch.tensor(list(Image.open(tmp_path / "train" / "building" / "000.png").get_flattened_data()))
    assert torch.equal(source.train.pixels[0].flatten(1).T, first.to(torch.uint8))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    write_photographs(tmp_path, {"train": 3, "test": 2})
    write_unreadable(tmp_path / "train" / "flower")
    return tmp_path


def test_unreadable_images_are_named_and_counted(damaged: Path) -> None:
    train = pictures(load_source(str(damaged)).train)
    with pytest.raises(UserError) as caught:
        train.stored(16)
    message = str(caught.value)
    assert message.startswith("2 of 8 images cannot be decoded: ")
    assert "text.jpg cannot be decoded: " in message and "truncated.jpg cannot be decoded: " in message
    assert "--reading.unreadable skip" in message


def test_unreadable_images_are_skipped_when_asked(damaged: Path) -> None:
    source = load_source(str(damaged), Reading(unreadable="skip"))
    assert len(source.train) == 6 and len(source.test) == 4
    assert "Skipped 2 of 8 train images: " in source.notes[-1]
    assert pictures(source.train).stored(16).pixels.shape[0] == 6


def test_places_that_are_refused(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            load_source(f"folder:{tmp_path}")

    refused(r"holds no folders; expected a folder of images for each class")
    (tmp_path / "train" / "ant").mkdir(parents=True)
    refused(r"no images in the class folders of .*train \(ant\); looked for files ending in \.jpg")
    write_photographs(tmp_path, {"train": 2, "test": 1})
    refused(r"classes without training images: 'ant' \(0 images\)")
    shutil.rmtree(tmp_path / "train" / "ant")
    (tmp_path / "test" / "wasp").mkdir()
    refused(r"test has the class folders wasp, which the training images do not have")
    with pytest.raises(UserError, match="nowhere does not exist; expected a folder of images for each class"):
        load_source("folder:nowhere")
    with pytest.raises(UserError, match="say folder:PATH"):
        load_source("folder")


def test_fingerprint_sees_names_lengths_and_labels(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"train": 2, "test": 1})
    before = load_source(str(tmp_path)).train.fingerprint()
    assert load_source(str(tmp_path)).train.fingerprint() == before
    file = tmp_path / "train" / "flower" / "000.jpg"
    file.write_bytes(file.read_bytes() + b"\0")
    assert load_source(str(tmp_path)).train.fingerprint() != before
