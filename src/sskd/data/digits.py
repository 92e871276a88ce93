"""scikit-learn's handwritten digits: 1,797 small grey images without a download, for first runs and tests."""

import torch
from torch.nn.functional import interpolate

from sskd.data.images import Images, channel_statistics
from sskd.data.source import Source
from sskd.data.subsets import validation_split
from sskd.errors import UserError
from sskd.reading import Reading

SIDE = 32
TEST_IMAGES = 797
SPLIT_SEED = 1797  # part of the data set's definition: the data set comes without a split of its own


def load(path: str | None, reading: Reading) -> Source:
    """1,000 training and 797 test images, 1x32x32 (bilinear from 8x8), with every class's share in both.

    There is nothing to guess, so `reading` changes nothing. Raises `UserError` if a path is given.
    """
    if path is not None:
        raise UserError(f"The data set digits comes with scikit-learn and takes no path, got {path!r}. Say digits.")
    from sklearn.datasets import load_digits  # here, since it takes longer to import than all the rest of a command

    digits = load_digits()
    coarse = torch.from_numpy(digits.images).unsqueeze(1) * (255 / 16)
    # float64: 8 -> 32 has weights in 64ths, so every value is exact and rounds alike on every machine
    fine = interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    images = Images(fine.round().to(torch.uint8), torch.from_numpy(digits.target).to(torch.int64))
    class_names = tuple(str(digit) for digit in range(10))
    train_index, test_index = validation_split(images.labels, TEST_IMAGES, SPLIT_SEED, class_names)
    train = images.take(train_index)
    mean, std = channel_statistics(train.pixels)
    return Source("digits", class_names, train, images.take(test_index), mean, std)
