"""Validation splits and fractions of the labels."""

import pytest
import torch

from sskd.data.subsets import describe_classes, label_fraction, validation_split
from sskd.errors import UserError


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
