"""Folders of photographs as people have them. For tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

CLASSES = ("building", "flower")


def scenes() -> dict[str, Image.Image]:
    """The two photographs that come with scikit-learn."""
    return dict(zip(CLASSES, map(Image.fromarray, load_sample_images().images), strict=True))


def cut(image: Image.Image, generator: np.random.Generator, low: int = 20, high: int = 60) -> Image.Image:
    """A part of a photograph, of a random size."""
    width, height = generator.integers(low, high, 2).tolist()
    left, top = (int(generator.integers(0, side)) for side in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height)).resize((width, height))


def write_photographs(folder: Path, counts: dict[str, int]) -> Path:
    """SPLIT/CLASS/N.jpg, of mixed sizes; SPLIT may be empty for class folders alone."""
    generator = np.random.default_rng(0)
    for name, image in scenes().items():
        for split, count in counts.items():
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                cut(image, generator).save(place / f"{i:03}.jpg")
    return folder


def write_streamable(folder: Path, counts: dict[str, int]) -> Path:
    """The same as parquet, as the hub has data sets that can be streamed."""
    import datasets

    loaded = datasets.load_dataset(str(write_photographs(folder / "photographs", counts)))
    (folder / "stored").mkdir()
    for split, rows in loaded.items():
        embedded = rows.map(lambda row: row, features=rows.features)
        embedded.cast_column("image", datasets.Image()).to_parquet(folder / "stored" / f"{split}.parquet")
    return folder / "stored"


def write_oddities(place: Path) -> None:
    """A grey, a CMYK, a turned and a palette image, one with an alpha channel; one of each that can be read."""
    image = cut(scenes()["flower"], np.random.default_rng(1), 30, 31)
    image.convert("L").save(place / "grey.jpg")
    image.convert("CMYK").save(place / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(place / "turned.jpeg", exif=exif)
    image.quantize(16).save(place / "palette.png")
    image.convert("RGBA").save(place / "alpha.PNG")


def write_unreadable(place: Path) -> None:
    """A JPEG that ends too early, and a text that is called one."""
    buffer = io.BytesIO()
    cut(scenes()["flower"], np.random.default_rng(2), 50, 60).save(buffer, format="JPEG")
    (place / "truncated.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (place / "text.jpg").write_text("not an image")
