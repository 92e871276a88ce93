"""Parquet folders that are refused, each with the file and what to do."""

import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sskd.data import columns, load_source
from sskd.data.decode import open_image
from sskd.data.pictures import Pictures
from sskd.errors import UserError
from sskd.reading import Reading
from tests.parquet import colours, encode, features, write, write_both


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_source(f"parquet:{folder}")


def test_places_without_a_data_set(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", r"nothing does not exist; expected a folder with train-\*\.parquet")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "file is a file; expected a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"no parquet files in .*empty; looked for train-\*\.parquet or train\.parquet")
    with pytest.raises(UserError, match="holds no images, no parquet files and no tar shards; expected a folder of"):
        load_source(str(tmp_path / "empty"))
    write(tmp_path / "half" / "train.parquet", {"image": colours(0), "label": [0, 1, 0, 1]})
    refused(tmp_path / "half", r"has no test split, only train\.parquet; expected")
    write(tmp_path / "other" / "test.parquet", {"image": colours(0), "label": [0, 1, 0, 1]})
    refused(tmp_path / "other", "has no training split")


@pytest.mark.parametrize(
    "shards", [["00000-of-00003", "00002-of-00003"], ["00000-of-00001", "00000-of-00002", "00001-of-00002"]]
)
def test_incomplete_shards(tmp_path: Path, shards: list[str]) -> None:
    write_both(tmp_path)
    (tmp_path / "train.parquet").unlink()
    for shard in shards:
        write(tmp_path / f"train-{shard}.parquet", {"image": colours(0), "label": [0, 1, 0, 1]})
    refused(tmp_path, rf"Not one complete set of shards in .*train-{shards[0]}.*Copy the missing")


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_truncated_file(tmp_path: Path, keep: int) -> None:
    file = write_both(tmp_path) / "train.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    refused(tmp_path, r"train\.parquet is not a whole parquet file .*Copy or download it again")


def test_file_with_damaged_pages(tmp_path: Path) -> None:
    file = write_both(tmp_path) / "test.parquet"
    content = file.read_bytes()
    file.write_bytes(b"PAR1" + b"\xff" * (len(content) // 2) + content[4 + len(content) // 2 :])
    refused(tmp_path, r"test\.parquet is not a whole parquet file")


def test_missing_columns(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"picture": colours(0), "label": [0, 1, 0, 1]})
    write(tmp_path / "test.parquet", {"picture": colours(0), "label": [0, 1, 0, 1]})
    refused(tmp_path, r"train\.parquet has no image column among picture, label\. Name the images img or image")
    write(tmp_path / "train.parquet", {"image": colours(0), "target": [0, 1, 0, 1]})
    refused(tmp_path, r"has no label column among image, target\. .*the labels fine_label or label or labels")


def test_columns_that_differ_between_files(tmp_path: Path) -> None:
    write_both(tmp_path)
    write(tmp_path / "test.parquet", {"img": colours(0), "label": [0, 1, 0, 1]})
    refused(
        tmp_path,
        r"train\.parquet stores image, label \(numbers\); test\.parquet stores img, label \(numbers\)",
    )
    write_both(tmp_path, label=["0", "1", "0", "1"])
    refused(tmp_path, r"test\.parquet stores image, label \(texts\)")


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (["bee", "ant"], "'ant' against 'bee'"),
        (["ant", "bee", "cat"], "None against 'cat'"),
        ([], "'ant' against None"),
    ],
)
def test_class_lists_that_differ(tmp_path: Path, other: list[str], difference: str) -> None:
    table = {"image": colours(0), "label": [0, 1, 0, 1]}
    write(tmp_path / "train.parquet", table, features(label=["ant", "bee"]))
    write(tmp_path / "test.parquet", table, features(label=other))
    refused(tmp_path, rf"train\.parquet and test\.parquet have different class lists, first {difference}")


def test_text_labels_that_differ(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"image": colours(0, 2), "label": ["cat", "dog"]})
    write(tmp_path / "test.parquet", {"image": colours(0, 2), "label": ["cat", "fox"]})
    refused(tmp_path, r"test\.parquet has the label 'fox' in row 1 \(from 0\).*different class lists")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 0], r"label 2 in row 2 \(from 0\) of label, none of the 2 classes: labels must be 0\.\.1"),
        ([0, 1, 1, -1], r"label -1 in row 3 .*-1 often marks a split published without labels"),
        ([0, None, None, 1], r"test\.parquet has no label in row 1 \(from 0\).*nor in 1 other rows"),
        ([0.0, 1.0, 1.0, 0.0], r"label column label of .*test\.parquet holds double; expected integers"),
        ([[0], [1], [0], [1]], r"holds list<.*expected integers"),
    ],
)
def test_bad_labels(tmp_path: Path, labels: list[Any], message: str) -> None:
    refused(write_both(tmp_path, label=labels), message)


def test_labels_that_are_identifiers(tmp_path: Path) -> None:
    write_both(tmp_path)
    write(tmp_path / "train.parquet", {"image": colours(0), "label": [0, 1, 2, 10**9]})
    refused(tmp_path, "go up to 1000000000, but there are only 4 training images")


@pytest.mark.parametrize("empty", ["train", "test"])
def test_empty_split(tmp_path: Path, empty: str) -> None:
    write_both(tmp_path)
    nothing = {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}
    write(tmp_path / f"{empty}.parquet", nothing)
    refused(tmp_path, f"The {empty} split in .* holds no images")


@pytest.mark.parametrize("bad", [b"no image", b"", colours(0)[0][:60], None])
def test_undecodable_image(tmp_path: Path, bad: bytes | None) -> None:
    write_both(tmp_path, image=[*colours(0, 2), bad, *colours(0, 1)])
    refused(
        tmp_path,
        r"1 of 4 images cannot be decoded: row 2 \(from 0\) of .*test\.parquet cannot be decoded: .*"
        r"leave them out with --reading\.unreadable skip",
    )
    source = load_source(str(tmp_path), Reading(unreadable="skip"))
    assert len(source.test) == 3
    assert "Skipped 1 of 4 test images: row 2" in source.notes[-1]


def test_undecodable_image_late_in_a_file(tmp_path: Path) -> None:
    """Rows are numbered through all the parts that the threads decode."""
    write_both(tmp_path, image=[*colours(0, 1) * 600, b"x"], label=[0] * 601)
    refused(tmp_path, r"row 600 \(from 0\)")


def test_image_column_of_another_type(tmp_path: Path) -> None:
    refused(write_both(tmp_path, image=["a.png"] * 4), r"holds string; expected encoded images")


def test_images_of_different_sizes_are_photographs(tmp_path: Path) -> None:
    write_both(tmp_path, image=[*colours(0, 3), *colours(0, 1, 8)])
    source = load_source(str(tmp_path))
    assert isinstance(source.train, Pictures) and isinstance(source.test, Pictures)
    assert [source.test.open(i).size for i in range(4)] == [(6, 6)] * 3 + [(8, 8)]
    assert source.test.stored(4).pixels.shape == (4, 3, 4, 4)


@pytest.mark.parametrize("text", ["", "  ", "[0, 1]", '{"a": 1}'])
def test_texts_that_are_no_labels(text: str, tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"image": colours(0), "label": ["cat", text, "dog", text]})
    write(tmp_path / "test.parquet", {"image": colours(0, 2), "label": ["cat", "dog"]})
    refused(tmp_path, r"train\.parquet, column label: 2 of 4 images have no label of one class: row 1 from 0 \(a")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (b"{", r"train\.parquet, its metadata named huggingface is no JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"[1]", r"metadata named huggingface: expected names with values; got \[1\]"),
        (b'{"info": [1]}', r"huggingface, info: expected names with values; got \[1\]"),
        (b'{"info": {"features": "x"}}', r"info\.features: expected names with values; got 'x'"),
        (
            b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": [0, 1]}}}}',
            r"classes in label.*text; got 0",
        ),
        (
            b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "a"]}}}}',
            "a class twice in label: 'a'",
        ),
        (b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": 2}}}}', "expected a list; got 2"),
    ],
)
def test_metadata_of_another_shape(metadata: bytes, message: str, tmp_path: Path) -> None:
    write_both(tmp_path)
    table = pa.table({"image": pa.array(colours(0)), "label": [0, 1, 0, 1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "train.parquet")
    refused(tmp_path, message)


@pytest.mark.parametrize("dictionary", [False, True])
def test_files_that_expand_are_bounded(dictionary: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the file states, and by what comes: a value may be stored once for many rows."""
    monkeypatch.setattr(columns, "EXPANDED", 1 << 20)
    write_both(tmp_path)
    table = pa.table({"image": [bytes(1 << 18)] * 40, "label": [0, 1] * 20})
    pq.write_table(table, tmp_path / "train.parquet", compression="zstd", use_dictionary=dictionary)
    assert (tmp_path / "train.parquet").stat().st_size < 10_000
    refused(
        tmp_path, r"train\.parquet has [\d,]+ bytes and would take [\d,]+ or more in memory.*--reading\.max_expansion"
    )
    with pytest.raises(UserError, match="cannot be decoded"):
        load_source(f"parquet:{tmp_path}", Reading(max_expansion=1e6))


def test_images_with_too_many_pixels(tmp_path: Path) -> None:
    """Refused by their headers, before they are decoded."""
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = header + struct.pack(">I", zlib.crc32(header[12:]))
    bomb += b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    write_both(tmp_path, image=[*colours(0, 3), bomb])
    refused(tmp_path, r"row 3 .*it has 50,000x50,000 pixels, more than 250,000,000 in all \(--reading\.max_pixels\)")
    assert len(load_source(str(tmp_path), Reading(unreadable="skip")).test) == 3
    train = load_source(str(write_both(tmp_path / "small")), Reading(max_pixels=35)).train
    assert isinstance(train, Pictures)
    with pytest.raises(UserError, match="it has 6x6 pixels, more than 35 in all"):
        train.open(0)


def test_labels_of_other_types(tmp_path: Path) -> None:
    write_both(tmp_path, label=[True, False] * 2)
    refused(tmp_path, r"column label of .*test\.parquet holds bool; expected integers .*--reading\.label")
    texts = ["0", "1", "2", "10"] * 2
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", {"image": colours(0, 8), "label": texts})
    source = load_source(str(tmp_path))
    assert source.class_names == ("0", "1", "10", "2") and source.train.labels.tolist() == [0, 1, 3, 2] * 2
    assert "so class 2 is 10, not 2" in source.notes[-1]
    write(tmp_path / "train.parquet", {"image": colours(0, 8), "label": [f"text {i}" for i in range(8)]})
    refused(tmp_path, r"column label: 8 training images have 8 different labels.*say --reading\.label label")


def test_an_icon_with_a_larger_image_inside(tmp_path: Path) -> None:
    """Pillow decodes it while it opens the icon, which states 8x8 pixels."""
    png = encode(Image.new("RGB", (300, 200)))
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 8, 8, 0, 0, 1, 32, len(png), 22) + png
    with pytest.raises(ValueError, match="it has 200x300 pixels, more than 1,000 in all"):
        open_image(icon, 1000)
    sound = encode(Image.new("RGB", (16, 16), "red"), format="ICO")
    assert open_image(sound, 256).getpixel((0, 0)) == (255, 0, 0)
    bitmap = encode(Image.new("RGB", (16, 16), "red"), format="ICO", bitmap_format="bmp")
    assert open_image(bitmap).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(ValueError, match="pixels, more than 100 in all"):
        open_image(bitmap, 100)


def test_one_file_is_not_both_splits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.parquet would be training and test images"):
        load_source(str(write_both(tmp_path)), Reading(test="train"))


def test_splits_in_any_case_and_what_is_not_used(tmp_path: Path) -> None:
    for name in ("Train", "VALIDATION", "Testing"):
        write(tmp_path / f"{name}.parquet", {"image": colours(0), "label": [0, 1, 0, 1], "labels": [0, 0, 1, 1]})
    note = load_source(str(tmp_path)).notes[0]
    assert "labels in label (not labels); tested on Testing.parquet; not used: VALIDATION.parquet." in note
