"""One thread, few small images, a teacher trained on them, and the command line inside this process."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from sskd.api import train_teacher
from sskd.cli.main import main
from sskd.data.images import Images
from sskd.data.source import ImageSet

TRAINING = (
    *("--precision", "fp32", "--channels_last", "false"),
    *("--threads", "1", "--tensorboard", "false", "--batch_size", "20"),
)


class Outcome(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def in_memory(images: ImageSet) -> Images:
    """The images, which are decoded."""
    assert isinstance(images, Images)
    return images


def write_images(folder: Path, images: np.ndarray, labels: Sequence[int | str]) -> Path:
    """A folder of parquet: the images as training and as test split."""
    folder.mkdir(parents=True, exist_ok=True)
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        encoded.append(buffer.getvalue())
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": encoded, "label": list(labels)}), folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 60 training and 30 test images, 1x8x8, of three handwritten digits."""
    digits = load_digits(n_class=3)
    folder = tmp_path_factory.mktemp("data") / "few"
    folder.mkdir()
    for split, where in (("train", slice(0, 60)), ("test", slice(100, 130))):
        images = (digits.images[where] * 15.9).astype(np.uint8)
        part = write_images(folder / split, images, digits.target[where].tolist()) / "train.parquet"
        part.rename(folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="session")
def teacher(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a finished teacher. Not to be written to."""
    out = tmp_path_factory.mktemp("runs") / "teacher"
    train_teacher(
        str(few),
        "cifar_resnet8",
        out=str(out),
        epochs=2,
        batch_size=20,
        validation=0.0,
        precision="fp32",
        channels_last=False,
        threads=1,
        tensorboard=False,
    )
    return out


@pytest.fixture
def sskd(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `sskd WORDS` in this process."""

    def run(*words: str | Path) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def distil(sskd: Cli, few: Path, teacher: Path) -> Cli:
    """Run `sskd distill WORDS` on the few images, quickly."""

    def run(*words: str | Path) -> Outcome:
        given = ["--student", "cifar_resnet8", "--data", few, "--teacher", teacher, "--validation", "0", *TRAINING]
        return sskd("distill", *given, *words)

    return run
