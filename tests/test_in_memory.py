"""Images that are handed over in Python: what is taken and how, what is refused, what a run makes of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import sskd
from sskd.data.images import Images
from sskd.data.in_memory import in_memory
from sskd.data.pictures import Pictures
from sskd.errors import UserError
from sskd.reading import Reading
from tests.conftest import in_memory as decoded

COUNT = 20
PIXELS = torch.randint(0, 256, (COUNT, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(COUNT) % 2


class Items(Dataset[Any]):
    """Any items, with class names if there are any."""

    def __init__(self, items: list[Any], classes: list[str] | None = None) -> None:
        self.items = items
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


def pictures(pixels: torch.Tensor = PIXELS) -> list[Image.Image]:
    return [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels]


def items(labels: list[Any] | None = None, **more: Any) -> Items:
    return Items(list(zip(pictures(), labels or LABELS.tolist(), strict=True)), **more)


def splits(data: Any, **reading: Any) -> tuple[Images, Images]:
    """Training and test images as handed over: no split is cut where `data` has a test split."""
    _, source = in_memory({"train": data, "test": (PIXELS[:4], LABELS[:4])}, Reading(**reading))
    return decoded(source.train), decoded(source.test)


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(PIXELS, LABELS),
        TensorDataset(PIXELS.float() / 255, LABELS),
        (PIXELS.numpy(), LABELS.numpy()),
        (PIXELS.permute(0, 2, 3, 1).numpy(), LABELS.tolist()),
        (PIXELS.double().numpy() / 255, LABELS.to(torch.int32)),
        (PIXELS.long(), LABELS),
        [PIXELS, LABELS],
        (pictures(), LABELS),
        items(),
        Items([(pixels, label) for pixels, label in zip(PIXELS.half() / 255, LABELS, strict=True)]),
        Subset(items([*LABELS.tolist()]), range(COUNT)),
        list(zip(pictures(), LABELS.tolist(), strict=True)),
    ],
    ids=[
        *("tensors", "floats", "arrays", "channels last", "doubles", "whole numbers", "list of two", "pictures"),
        *("data set", "half", "subset", "list of items"),
    ],
)
def test_what_is_taken(data: Any) -> None:
    train, test = splits(data)
    assert torch.equal(train.pixels, PIXELS) and torch.equal(train.labels, LABELS)
    assert torch.equal(test.pixels, PIXELS[:4])


def test_grey_images() -> None:
    for data in (PIXELS[:, 0], PIXELS[:, :1], PIXELS[:, 0, :, :, None], PIXELS[:, 0].float() / 255):
        _, source = in_memory((data, LABELS), Reading(test_share=0.5))
        assert decoded(source.train).pixels.shape == (10, 1, 8, 8) and len(source.mean) == 1
    train, _ = splits((PIXELS[:, 0] > 100, LABELS))
    assert torch.equal(train.pixels, ((PIXELS[:, :1] > 100) * 255).to(torch.uint8).expand(-1, 3, -1, -1))


def test_classes_and_splits() -> None:
    name, source = in_memory(items(["dog", "cat"] * 10), Reading(test_share=0.3))
    assert source.class_names == ("cat", "dog") and [len(source.train), len(source.test)] == [14, 6]
    assert name.startswith("memory:Items-") and source.name == "Items"
    assert in_memory(items(classes=["a", "b"]), Reading())[1].class_names == ("a", "b")
    assert in_memory(Subset(items(classes=["a", "b"]), range(6)), Reading())[1].class_names == ("a", "b")
    three = {"Training": items(), "val": (PIXELS[:4], LABELS[:4]), "test": (PIXELS[4:10], LABELS[4:10])}
    source = in_memory(three, Reading())[1]
    assert source.validation is not None
    assert [len(source.train), len(source.validation), len(source.test)] == [20, 4, 6]
    source = in_memory({"mine": items(), "yours": (PIXELS[:4], LABELS[:4])}, Reading(train="mine", test="yours"))[1]
    assert [len(source.train), len(source.test)] == [20, 4]


def test_images_of_mixed_sizes() -> None:
    mixed = [Image.new("RGB", (10 + i, 12), (10 * i, 0, 0)) for i in range(COUNT)]
    _, source = in_memory((mixed, LABELS), Reading())
    train = source.train
    assert isinstance(train, Pictures) and train.open(3).size == mixed[int(train.place[3])].size
    assert train.open(3).getpixel((0, 0)) == mixed[int(train.place[3])].getpixel((0, 0))


def test_the_name_holds_a_hash_of_the_content() -> None:
    name = in_memory((PIXELS, LABELS), Reading())[0]
    assert name == in_memory((PIXELS.float() / 255, LABELS.tolist()), Reading())[0]
    changed = PIXELS.clone()
    changed[3, 0, 0, 0] ^= 1
    others = [in_memory(data, Reading())[0] for data in ((changed, LABELS), (PIXELS, 1 - LABELS))]
    assert len({name, *others}) == 3
    mixed = [Image.new("RGB", (10 + i, 12)) for i in range(COUNT)]
    again = [*mixed[:-1], Image.new("RGB", mixed[-1].size, "red")]
    assert in_memory((mixed, LABELS), Reading())[0] != in_memory((again, LABELS), Reading())[0]


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Random(Items):
    def __getitem__(self, i: int) -> Any:
        return np.random.default_rng().integers(0, 256, (8, 8, 3), np.uint8), i % 2


class Damaged(Items):
    def __getitem__(self, i: int) -> Any:
        if i == 3:
            raise KeyError("gone")
        return PIXELS[i], 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            3,
            r"As data came a int; expected a folder or name as text, a torch\.utils\.data\.Dataset of \(image, label\)",
        ),
        (PIXELS, r"As data came a torch\.Tensor of shape \[20, 3, 8, 8\]"),
        ([1, 2], r"Item 0 of the train split is a int; expected \(image, label\)"),
        (DataLoader(items()), r"A DataLoader was handed over; .*loader\.dataset"),
        (Endless(), r"As data came a tests\.test_in_memory\.Endless"),
        ((items(), items()), r'A tuple of data sets was handed over.*\{"train": \.\.\., "test": \.\.\.\}'),
        (
            TensorDataset(PIXELS, LABELS, LABELS),
            r"is a TensorDataset of 3 tensors; expected two, \(image, label\)",
        ),
        (Items([(one, 0, 7) for one in pictures()]), r"Item 0 of the train split is a tuple of 3; expected \(image"),
        (Damaged([0] * COUNT), r"Item 3 \(from 0\) of the train split .*: Damaged\[3\] fails with KeyError: 'gone'"),
        ({"a": items()}, r'no split named "train", only a'),
        ({"train": items(), "Training": items()}, r"several train splits: train, Training"),
        (Items([{"x": 1}]), r"Item 0 of the train split is a dict"),
        ((PIXELS, LABELS[:4]), "has 20 images, but 4 labels"),
        ((PIXELS, torch.eye(2)[LABELS]), r"shape \[20, 2\]; .*labels\.argmax\(1\)"),
        ((PIXELS, LABELS.float()), r"20 of 20 .*item 0 from 0 \(0\.0\)"),
        ((PIXELS, [None, *LABELS.tolist()[1:]]), r"1 of 20 .*item 0 from 0 \(null\)"),
        ((PIXELS, [-1, *LABELS.tolist()[1:]]), r"1 of 20 .*row 0 from 0 \(-1\)"),
        ((PIXELS, ["", *["cat", "dog"] * 9, "cat"]), r"1 of 20 .*\(an empty text\)"),
        ((PIXELS, ["cat", *LABELS.tolist()[1:]]), "both numbers and texts as labels"),
        ((PIXELS, LABELS * 1000), r"go up to 1000, but there are only 20"),
        ({"train": (PIXELS, ["a", "b"] * 10), "test": (PIXELS[:2], ["a", "c"])}, r"test: 1 of 2 .*\('c'\)"),
        ({"train": (PIXELS, ["a", "b"] * 10), "test": (PIXELS[:2], [0, 1])}, "One split has numbers"),
        ((PIXELS.float(), LABELS), r"torch|float32 \(train\) have values from 0 to 255; expected 0 to 1"),
        ((PIXELS.float() / 128 - 1, LABELS), r"from -1 to 0\.9922; .*each network normalises for itself"),
        ((PIXELS.float() * float("nan"), LABELS), r"have values from nan to nan"),
        ((PIXELS.long() * 2, LABELS), r"int64 \(train\) have values from 0 to 510; expected 0 to 255"),
        ((PIXELS[:, :, :3, :3], LABELS), r"shape \[20, 3, 3, 3\] .*channels first or last: both fit"),
        ((PIXELS[:, [0, 1]], LABELS), r"shape \[20, 2, 8, 8\] .*neither"),
        ((PIXELS[:, :, :4], LABELS), r"are 4x8 .*--reading\.square crop"),
        ((PIXELS[:0], LABELS[:0]), "holds no images"),
        (Random([0] * COUNT), "another image each time it is read: the data set has random transforms"),
    ],
)
def test_what_is_refused(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        in_memory(data, Reading())


def test_an_error_of_the_data_set_is_chained() -> None:
    with pytest.raises(UserError) as refused:
        in_memory(Damaged([0] * COUNT), Reading())
    assert isinstance(refused.value.__cause__, KeyError)


def test_the_same_images_twice_are_refused() -> None:
    data = items()
    with pytest.raises(UserError, match="train and test are the same images"):
        in_memory({"train": data, "test": data}, Reading())
    with pytest.raises(UserError, match=r"reading\.label is for data sets with columns"):
        in_memory(data, Reading(label="x"))


def test_hugging_face_data_sets() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])})
    rows = datasets.Dataset.from_dict({"photo": pictures(), "kind": LABELS.tolist()}, features=features)
    tests = rows.select(range(4))
    train, test = in_memory(datasets.DatasetDict(train=rows, validation=tests), Reading())[1], None
    assert torch.equal(decoded(train.train).pixels, PIXELS) and train.class_names == ("cat", "dog")
    assert len(train.test) == 4 and "images in column photo, labels in kind" in train.notes[0]
    assert len(in_memory(rows, Reading())[1].test) == 4 and test is None
    features["kind"] = datasets.Value("int64")
    plain = datasets.Dataset.from_dict({"photo": pictures(), "kind": LABELS.tolist()}, features=features)
    with pytest.raises(UserError, match="has no label column among photo, kind"):
        in_memory(plain, Reading())
    with pytest.raises(UserError, match=r"kind of Dataset is no ClassLabel\..*class_encode_column\('kind'\)"):
        in_memory(plain, Reading(label="kind"))
    with pytest.raises(UserError, match=r"1 of 20 images have no label .*row 3 from 0 \(-1\)"):
        labels = [-1 if i == 3 else i % 2 for i in range(COUNT)]
        features["kind"] = datasets.ClassLabel(names=["cat", "dog"])
        in_memory(datasets.Dataset.from_dict({"photo": pictures(), "kind": labels}, features=features), Reading())


def test_a_run_of_images_in_memory(tmp_path: Path) -> None:
    """Trained, continued only with the same images, evaluated; the name stands in its config."""
    data = TensorDataset(PIXELS, LABELS)
    given: dict[str, Any] = {"epochs": 1, "batch_size": 4, "device": "cpu", "threads": 1, "padding": 1}
    given |= {"out": str(tmp_path / "run"), "precision": "fp32", "channels_last": False}
    result = sskd.distill("cifar_resnet8", data, method="ce", **given)
    assert result["classes"] == ["0", "1"]
    assert '"data": "memory:TensorDataset-' in (tmp_path / "run" / "config.json").read_text()
    assert sskd.distill("cifar_resnet8", data, method="ce", **given) == result
    with pytest.raises(UserError, match="data"):
        sskd.distill("cifar_resnet8", TensorDataset(PIXELS, 1 - LABELS), method="ce", **given)
    measured = sskd.evaluate(str(tmp_path / "run"), {"train": data, "test": (PIXELS, LABELS)})
    assert measured["images"] == COUNT
    with pytest.raises(UserError, match="was handed over in Python and is stored nowhere"):
        sskd.evaluate(str(tmp_path / "run"), "memory:TensorDataset-abc")
