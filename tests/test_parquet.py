"""Parquet folders that are read."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from sskd.data import load_source
from sskd.data.images import channel_statistics
from sskd.errors import UserError
from sskd.reading import Reading
from tests.conftest import in_memory
from tests.parquet import colours, encode, features, pixels, structs, write, write_both


def test_metadata_names_columns_and_classes(tmp_path: Path) -> None:
    """Shards in the order of their numbers, in data/, with columns that only the metadata tells apart."""
    truth = pixels(3, 12, 6, 6, 3)
    names = features(photo=None, coarse=["a", "b"], kind=["ant", "bee", "cat"])
    for shard in (1, 0):
        part = slice(4 * shard, 4 * shard + 4)
        columns = {
            "coarse": [0, 1, 0, 1],
            "kind": [2, 1, 0, 2 - shard],
            "photo": structs([encode(image) for image in truth[part]]),
        }
        write(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", columns, names)
    test = {"coarse": [0] * 4, "kind": [0, 1, 2, 0], "photo": structs([encode(image) for image in truth[8:]])}
    write(tmp_path / "data" / "test-00000-of-00001-0a1b2c.parquet", test, names)
    source = load_source(str(tmp_path))
    assert source.class_names == ("ant", "bee", "cat")
    assert source.train.labels.tolist() == [2, 1, 0, 2, 2, 1, 0, 1]
    assert source.test.labels.tolist() == [0, 1, 2, 0]
    expected = torch.from_numpy(truth).permute(0, 3, 1, 2)
    assert torch.equal(in_memory(source.train).pixels, expected[:8])
    assert torch.equal(in_memory(source.test).pixels, expected[8:])
    assert in_memory(source.train).pixels.is_contiguous()
    assert (source.mean, source.std) == channel_statistics(expected[:8])


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        (["coarse_label", "fine_label", "label"], "label"),
        (["coarse_label", "fine_label"], "fine_label"),
        (["few", "most", "some"], "most"),
    ],
)
def test_choice_among_class_labels(tmp_path: Path, columns: list[str], chosen: str) -> None:
    classes = {name: ["a", "b", "c"] + ["d"] * (name == "most") for name in columns}
    classes[chosen][0] = "chosen"
    for split in ("train", "test"):
        table = {"img": colours(0), **{name: [0, 1, 2, 3 % len(classes[name])] for name in columns}}
        write(tmp_path / f"{split}.parquet", table, features(img=None, **classes))
    assert load_source(str(tmp_path)).class_names[0] == "chosen"


@pytest.mark.parametrize("column", ["fine_label", "label", "labels"])
@pytest.mark.parametrize("image", ["img", "image"])
def test_columns_by_name(tmp_path: Path, column: str, image: str) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", {"id": [7] * 4, image: colours(0), column: [0, 1, 2, 0]})
    source = load_source(str(tmp_path))
    assert source.class_names == ("0", "1", "2")
    assert source.train.labels.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("dictionary", [False, True])
def test_text_labels(tmp_path: Path, dictionary: bool) -> None:
    for split in ("train", "test"):
        labels = pa.array(["dog", "cat", "emu", "cat"])
        table = {"image": colours(0), "label": labels.dictionary_encode() if dictionary else labels}
        write(tmp_path / f"{split}.parquet", table)
    source = load_source(str(tmp_path))
    assert source.class_names == ("cat", "dog", "emu")
    assert source.train.labels.tolist() == [1, 0, 2, 0]


def test_validation_files_stand_in_for_test(tmp_path: Path) -> None:
    write(tmp_path / "train-a.parquet", {"image": colours(0), "label": [0, 1, 0, 1]})
    write(tmp_path / "validation-a.parquet", {"image": colours(1, 2), "label": [0, 1]})
    assert len(load_source(str(tmp_path)).test) == 2
    write(tmp_path / "test-a.parquet", {"image": colours(1, 3), "label": [0, 1, 0]})
    assert len(load_source(str(tmp_path)).test) == 3


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    grey = pixels(5, 2, 6, 6)
    binary = Image.fromarray(grey[0]).convert("1")
    write(tmp_path / "train.parquet", {"image": [encode(grey[0]), encode(binary)], "label": [0, 1]})
    write(tmp_path / "test.parquet", {"image": [encode(image) for image in grey], "label": [0, 1]})
    source = load_source(str(tmp_path))
    assert in_memory(source.train).pixels.shape == (2, 1, 6, 6)
    assert torch.equal(in_memory(source.train).pixels[0, 0], torch.from_numpy(grey[0]))
    assert set(in_memory(source.train).pixels[1].flatten().tolist()) == {0, 255}
    assert len(source.mean) == len(source.std) == 1


def over_white(rgba: np.ndarray) -> torch.Tensor:
    alpha = rgba[:, :, 3:] / 255
    return torch.from_numpy(rgba[:, :, :3] * alpha + 255 * (1 - alpha)).permute(2, 0, 1)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 36).astype(np.uint16).reshape(6, 6)
    write_both(tmp_path, image=[encode(Image.fromarray(deep))] * 4)
    shallow = in_memory(load_source(str(tmp_path)).test).pixels[0]
    assert torch.equal(shallow, torch.from_numpy((deep / 257).round()).to(torch.uint8).expand(3, 6, 6))


def test_mixed_modes_become_colour(tmp_path: Path) -> None:
    """Grey beside colour, in one part and across splits; alpha and palettes."""
    grey, rgba = pixels(6, 6, 6), pixels(7, 6, 6, 4)
    palette = Image.fromarray(pixels(8, 6, 6) // 16, mode="P")
    palette.putpalette(pixels(9, 768).tolist())
    train = [encode(grey), encode(rgba), encode(palette)]
    write(tmp_path / "train.parquet", {"image": train, "label": [0, 1, 0]})
    write(tmp_path / "test.parquet", {"image": [encode(grey)], "label": [0]})
    source = load_source(str(tmp_path))
    assert in_memory(source.train).pixels.shape == (3, 3, 6, 6)
    assert torch.equal(in_memory(source.train).pixels[0], torch.from_numpy(grey).expand(3, 6, 6))
    assert (in_memory(source.train).pixels[1].float() - over_white(rgba)).abs().max() <= 1
    colours_of = torch.from_numpy(np.array(palette.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(in_memory(source.train).pixels[2], colours_of)
    assert torch.equal(in_memory(source.test).pixels[0], torch.from_numpy(grey).expand(3, 6, 6))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = pixels(10, 6, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = encode(image, exif=exif)
    write(tmp_path / "train.parquet", {"image": [turned, encode(image)], "label": [0, 1]})
    write(tmp_path / "test.parquet", {"image": [turned], "label": [0]})
    source = load_source(str(tmp_path))
    expected = torch.from_numpy(np.rot90(image, -1).copy()).permute(2, 0, 1)
    assert torch.equal(in_memory(source.train).pixels[0], expected)
    assert torch.equal(in_memory(source.train).pixels[1], torch.from_numpy(image).permute(2, 0, 1))


def test_images_that_are_not_square(tmp_path: Path) -> None:
    images = pixels(11, 2, 6, 10, 3)
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", {"image": [encode(i) for i in images], "label": [0, 1]})
    with pytest.raises(UserError, match=r"are 6x10 \(height x width\).*--reading.square crop"):
        load_source(str(tmp_path))
    source = load_source(str(tmp_path), reading=Reading(square="crop"))
    expected = torch.from_numpy(images[:, :, 2:8]).permute(0, 3, 1, 2)
    assert torch.equal(in_memory(source.train).pixels, expected)
    assert torch.equal(in_memory(source.test).pixels, expected)
    assert (source.mean, source.std) == channel_statistics(expected)
