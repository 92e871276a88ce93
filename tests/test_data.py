"""The data families, their errors, and the subsets."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from sskd.data import SOURCES, digits, load_source
from sskd.data.source import Source, channel_statistics
from sskd.data.subsets import describe_classes, label_fraction, validation_split
from sskd.errors import UserError

CIFAR100 = Path(__file__).parents[1].parent / "shared" / "data" / "cifar100"


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image: np.ndarray | Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def features(**columns: Sequence[str] | None) -> dict[bytes, bytes]:
    """The metadata that the datasets library writes: None is an image, a list names classes."""
    typed = {
        name: {"_type": "Image"} if names is None else {"_type": "ClassLabel", "names": list(names)}
        for name, names in columns.items()
    }
    return {b"huggingface": json.dumps({"info": {"features": typed}}).encode()}


def write(file: Path, columns: dict[str, Any], metadata: dict[bytes, bytes] | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)


def structs(images: Sequence[bytes | None]) -> pa.Array:
    rows = [{"bytes": data, "path": None} for data in images]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def colours(seed: int, count: int = 4, side: int = 6) -> list[bytes]:
    return [encode(image) for image in pixels(seed, count, side, side, 3)]


def write_both(folder: Path, **change: Any) -> Path:
    """A sound folder of 4 + 4 images of 2 classes, with the changed test columns."""
    write(folder / "train.parquet", {"image": colours(0), "label": [0, 1, 0, 1]})
    write(folder / "test.parquet", {"image": colours(1), "label": [0, 1, 1, 0], **change})
    return folder


# families by name and place


def test_digits() -> None:
    source = load_source("digits")
    assert (len(source.train), len(source.test)) == (1000, 797)
    assert source.train.pixels.shape == (1000, 1, 32, 32)
    assert source.train.pixels.dtype == torch.uint8
    assert source.train.labels.dtype == torch.int64
    assert source.class_names == tuple("0123456789")
    together = source.train.labels.bincount() + source.test.labels.bincount()
    assert ((source.test.labels.bincount() - together * 797 / 1797).abs() < 1).all()
    assert (int(source.train.pixels.min()), int(source.train.pixels.max())) == (0, 255)
    assert (source.mean, source.std) == channel_statistics(source.train.pixels)
    scaled = source.train.pixels.double() / 255
    assert source.mean[0] == pytest.approx(scaled.mean().item())
    assert source.std[0] == pytest.approx(scaled.std(correction=0).item())
    assert load_source("digits").train.fingerprint() == source.train.fingerprint()
    # the data set itself: a change here makes every number measured on it incomparable
    assert source.train.fingerprint().startswith("b1b370d144e8b823")


def test_digits_are_upsampled_bilinearly() -> None:
    """Against NumPy's one-dimensional interpolation between pixel centres, first along rows, then columns."""
    raw = load_digits()
    index, _ = validation_split(torch.from_numpy(raw.target), 797, digits.SPLIT_SEED, "0123456789")
    train = load_source("digits").train
    centres = (np.arange(32) + 0.5) / 4 - 0.5
    for position in (0, 500, 999):
        image = raw.images[index[position]]
        wide = np.stack([np.interp(centres, np.arange(8), row) for row in image])
        expected = np.stack([np.interp(centres, np.arange(8), column) for column in wide.T], axis=1)
        assert np.abs(train.pixels[position, 0].numpy() - expected * 255 / 16).max() <= 0.5 + 1e-9
        assert train.labels[position] == raw.target[index[position]]


def test_load_source_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_both(tmp_path / "tiny")
    by_folder, by_family = load_source(str(folder)), load_source(f"parquet:{folder}")
    assert by_folder.name == by_family.name == "tiny"
    assert by_folder.train.fingerprint() == by_family.train.fingerprint()
    monkeypatch.chdir(folder)
    assert load_source(".").name == "tiny"
    assert set(SOURCES) == {"digits", "parquet"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", r"There is no data set named 'digit'\. Did you mean 'digits'\?"),
        ("imagenet:x/y", r"There is no data set named 'imagenet'\. Known: digits, parquet\."),
        ("digits:somewhere", r"digits comes with scikit-learn and takes no path, got 'somewhere'"),
        ("parquet", r"needs a folder: say parquet:PATH"),
        ("no/such/folder", r"no/such/folder does not exist; expected a folder with train-\*\.parquet"),
        ("parquet:nowhere", r"nowhere does not exist"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_source(spec)


def test_class_without_training_images(tmp_path: Path) -> None:
    names = features(image=None, label=["ant", "bee", "cat", "dog"])
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", {"image": colours(0), "label": [0, 0, 2, 2]}, names)
    with pytest.raises(UserError, match=r"without training images: 'bee' \(0 images\), 'dog' \(0 images\)"):
        load_source(str(tmp_path))


def test_one_class_only(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", {"image": colours(0), "label": [0] * 4})
    with pytest.raises(UserError, match=r"has 1 class \(0\); a classifier needs at least 2"):
        load_source(str(tmp_path))


# parquet: what is read


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
    assert torch.equal(source.train.pixels, expected[:8])
    assert torch.equal(source.test.pixels, expected[8:])
    assert source.train.pixels.is_contiguous()
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
    assert source.train.pixels.shape == (2, 1, 6, 6)
    assert torch.equal(source.train.pixels[0, 0], torch.from_numpy(grey[0]))
    assert set(source.train.pixels[1].flatten().tolist()) == {0, 255}
    assert len(source.mean) == len(source.std) == 1


def test_mixed_modes_become_colour(tmp_path: Path) -> None:
    """Grey beside colour, in one part and across splits; alpha and palettes."""
    grey, rgba = pixels(6, 6, 6), pixels(7, 6, 6, 4)
    palette = Image.fromarray(pixels(8, 6, 6) // 16, mode="P")
    palette.putpalette(pixels(9, 768).tolist())
    train = [encode(grey), encode(rgba), encode(palette)]
    write(tmp_path / "train.parquet", {"image": train, "label": [0, 1, 0]})
    write(tmp_path / "test.parquet", {"image": [encode(grey)], "label": [0]})
    source = load_source(str(tmp_path))
    assert source.train.pixels.shape == (3, 3, 6, 6)
    assert torch.equal(source.train.pixels[0], torch.from_numpy(grey).expand(3, 6, 6))
    assert torch.equal(source.train.pixels[1], torch.from_numpy(rgba[:, :, :3]).permute(2, 0, 1))
    assert torch.equal(source.train.pixels[2], torch.from_numpy(np.array(palette.convert("RGB"))).permute(2, 0, 1))
    assert torch.equal(source.test.pixels[0], torch.from_numpy(grey).expand(3, 6, 6))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = pixels(10, 6, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = encode(image, exif=exif)
    write(tmp_path / "train.parquet", {"image": [turned, encode(image)], "label": [0, 1]})
    write(tmp_path / "test.parquet", {"image": [turned], "label": [0]})
    source = load_source(str(tmp_path))
    expected = torch.from_numpy(np.rot90(image, -1).copy()).permute(2, 0, 1)
    assert torch.equal(source.train.pixels[0], expected)
    assert torch.equal(source.train.pixels[1], torch.from_numpy(image).permute(2, 0, 1))


def test_images_that_are_not_square(tmp_path: Path) -> None:
    images = pixels(11, 2, 6, 10, 3)
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", {"image": [encode(i) for i in images], "label": [0, 1]})
    with pytest.raises(UserError, match=r"are 6x10 \(height x width\).*--square crop"):
        load_source(str(tmp_path))
    source = load_source(str(tmp_path), square="crop")
    expected = torch.from_numpy(images[:, :, 2:8]).permute(0, 3, 1, 2)
    assert torch.equal(source.train.pixels, expected)
    assert torch.equal(source.test.pixels, expected)
    assert (source.mean, source.std) == channel_statistics(expected)


# parquet: what is refused


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_source(f"parquet:{folder}")


def test_places_without_a_data_set(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", r"nothing does not exist; expected a folder with train-\*\.parquet")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "file is a file; expected a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"no parquet files in .*empty; looked for train-\*\.parquet or train\.parquet")
    with pytest.raises(UserError, match="no parquet files in"):
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


@pytest.mark.parametrize("bad", [b"no image", b"", colours(0)[0][:60], None, "sixteen"])
def test_undecodable_image(tmp_path: Path, bad: bytes | str | None) -> None:
    data = encode(Image.new("I;16", (6, 6))) if isinstance(bad, str) else bad
    write_both(tmp_path, image=[*colours(0, 2), data, *colours(0, 1)])
    refused(tmp_path, r"image in row 2 \(from 0\) of .*test\.parquet cannot be decoded: ")


def test_undecodable_image_late_in_a_file(tmp_path: Path) -> None:
    """Rows are numbered through all the parts that the threads decode."""
    write_both(tmp_path, image=[*colours(0, 1, 2) * 600, b"x"], label=[0] * 601)
    refused(tmp_path, r"image in row 600 \(from 0\)")


def test_image_column_of_another_type(tmp_path: Path) -> None:
    refused(write_both(tmp_path, image=["a.png"] * 4), r"holds string; expected encoded images")


def test_images_of_different_sizes(tmp_path: Path) -> None:
    remedy = r"\(height x width\)\. Resize them all to one size first"
    write_both(tmp_path, image=[*colours(0, 3), *colours(0, 1, 8)])
    refused(tmp_path, rf"test\.parquet have different sizes, such as 6x6 and 8x8 {remedy}")
    write_both(tmp_path, image=colours(0, 4, 8))  # each file for itself is in order
    refused(tmp_path, rf"different sizes, such as 6x6 and 8x8 {remedy}")


# subsets


def labels_of(*counts: int) -> torch.Tensor:
    labels = torch.repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


def names_of(classes: int) -> list[str]:
    return [f"class{label}" for label in range(classes)]


@pytest.mark.parametrize("size", [0.1, 0.33, 0.5, 37, 400])
def test_validation_split_is_stratified(size: float) -> None:
    counts = (100, 217, 50, 333, 41)
    labels, total = labels_of(*counts), sum(counts)
    train, validation = validation_split(labels, size, 3, names_of(5))
    expected = size if size >= 1 else round(size * total)
    assert len(validation) == expected
    assert train.dtype == validation.dtype == torch.int64
    assert torch.equal(torch.cat([train, validation]).sort().values, torch.arange(total))
    assert torch.equal(train, train.sort().values) and torch.equal(validation, validation.sort().values)
    given = labels[validation].bincount(minlength=5)
    assert ((given - torch.tensor(counts) * expected / total).abs() < 1).all()


def test_subsets_depend_on_the_seed_alone() -> None:
    labels = labels_of(40, 60)
    torch.manual_seed(1)
    first, fraction = validation_split(labels, 0.2, 5, "ab")[1], label_fraction(labels, 0.2, 5, "ab")
    torch.manual_seed(2)
    assert torch.equal(validation_split(labels, 0.2, 5, "ab")[1], first)
    assert torch.equal(label_fraction(labels, 0.2, 5, "ab"), fraction)
    assert not torch.equal(validation_split(labels, 0.2, 6, "ab")[1], first)
    assert not torch.equal(label_fraction(labels, 0.2, 6, "ab"), fraction)


def test_no_validation() -> None:
    train, validation = validation_split(labels_of(1, 3), 0, 0, "ab")
    assert train.tolist() == [0, 1, 2, 3]
    assert validation.tolist() == [] and validation.dtype == torch.int64


@pytest.mark.parametrize("size", [-0.1, 10, 11, float("nan")])
def test_validation_size_out_of_range(size: float) -> None:
    with pytest.raises(UserError, match=r"expected a fraction from 0 to below 1, or a number of images below 10"):
        validation_split(labels_of(5, 5), size, 0, "ab")


def test_validation_needs_whole_numbers() -> None:
    with pytest.raises(UserError, match=r"--validation is 2\.5; from 1 on it is a number of images"):
        validation_split(labels_of(5, 5), 2.5, 0, "ab")


def test_validation_leaves_no_class_out() -> None:
    with pytest.raises(UserError, match=r"get no validation image: 'b' \(2 images\), 'c' \(1 image\)\. Hold out"):
        validation_split(labels_of(97, 2, 1), 0.1, 0, "abc")
    with pytest.raises(UserError, match=r"keep no training image: 'c' \(1 image\)\. Hold out fewer"):
        validation_split(labels_of(4, 3, 1), 0.7, 0, "abc")


@pytest.mark.parametrize("fraction", [0.05, 0.25, 0.5, 0.75])
def test_label_fraction_is_stratified(fraction: float) -> None:
    counts = (100, 217, 50, 333, 41)
    labels = labels_of(*counts)
    index = label_fraction(labels, fraction, 3, names_of(5))
    assert len(index) == len(set(index.tolist())) == round(fraction * len(labels))
    assert torch.equal(index, index.sort().values) and index.dtype == torch.int64
    share = torch.tensor(counts) * len(index) / len(labels)
    assert ((labels[index].bincount() - share).abs() < 1).all()


def test_label_fraction_of_everything() -> None:
    assert torch.equal(label_fraction(labels_of(5, 1), 1.0, 0, "ab"), torch.arange(6))


def test_label_fraction_refuses() -> None:
    for fraction in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(UserError, match="expected more than 0 and at most 1"):
            label_fraction(labels_of(5, 5), fraction, 0, "ab")
    with pytest.raises(UserError, match=r"without an image: 'b' \(3 images\)\. Take a larger fraction"):
        label_fraction(labels_of(97, 3), 0.1, 0, "ab")


def test_long_lists_of_classes_are_cut() -> None:
    text = describe_classes(torch.zeros(13, dtype=torch.int64), names_of(13), torch.ones(13, dtype=torch.bool))
    assert text.endswith("'class9' (0 images), and 3 more")


# the real thing


@pytest.fixture(scope="module")
def cifar100() -> Source:
    if not CIFAR100.is_dir():
        pytest.skip(f"CIFAR-100 is not at {CIFAR100}")
    return load_source(str(CIFAR100))


def test_cifar100(cifar100: Source) -> None:
    assert cifar100.name == "cifar100"
    assert cifar100.train.pixels.shape == (50_000, 3, 32, 32)
    assert cifar100.test.pixels.shape == (10_000, 3, 32, 32)
    assert len(cifar100.class_names) == 100
    assert cifar100.class_names[0] == "apple"
    assert list(cifar100.class_names) == sorted(cifar100.class_names)
    assert (cifar100.train.labels.bincount() == 500).all()
    assert (cifar100.test.labels.bincount() == 100).all()


def test_cifar100_statistics(cifar100: Source) -> None:
    assert cifar100.mean == (0.5071, 0.4866, 0.4409)
    assert cifar100.std == (0.2675, 0.2565, 0.2761)
    mean, std = channel_statistics(cifar100.train.pixels)
    assert mean == pytest.approx(cifar100.mean, abs=0.002)
    assert std == pytest.approx(cifar100.std, abs=0.002)


def test_cifar100_validation(cifar100: Source) -> None:
    train, validation = validation_split(cifar100.train.labels, 5000, 0, cifar100.class_names)
    assert (len(train), len(validation)) == (45_000, 5000)
    assert (cifar100.train.labels[validation].bincount() == 50).all()
