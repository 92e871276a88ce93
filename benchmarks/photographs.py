"""Generated photographs of ImageNet's usual size, as class folders or tar shards, to measure and try pipelines with.

`python -m benchmarks.photographs FOLDER --images 1000`: pieces of the two photographs that come with scikit-learn, each
with its own cut, colours and grain, 500 x 375 pixels or upright, about 110 KB of JPEG.
"""

import argparse
import io
import math
import sys
import tarfile
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

LONG, SHORT, QUALITY, GRAIN = 500, 375, 92, 9.0


def photograph(scene: Image.Image, generator: np.random.Generator) -> bytes:
    """One JPEG."""
    size = (LONG, SHORT) if generator.random() < 0.75 else (SHORT, LONG)
    share = generator.uniform(0.4, 0.85)
    width, height = (share * side for side in (scene.height * size[0] / size[1], scene.height))
    left, top = generator.uniform(0, scene.width - width), generator.uniform(0, scene.height - height)
    cut = scene.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    cut = ImageEnhance.Color(cut).enhance(generator.uniform(0.4, 1.6))
    cut = ImageEnhance.Brightness(cut).enhance(generator.uniform(0.7, 1.3))
    pixels = np.asarray(cut) + generator.normal(0, GRAIN, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()


def name(label: int) -> str:
    """Of a class, as ImageNet's synsets look."""
    return f"n{label:08}"


def photographs(count: int, classes: int, seed: int) -> Iterator[tuple[bytes, int]]:
    """JPEGs with their labels."""
    scenes = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    generator = np.random.default_rng(seed)
    for i in range(count):
        label = i % classes
        yield photograph(scenes[label % len(scenes)], generator), label


def write_folders(folder: Path, images: int, tests: int, classes: int) -> Path:
    """train/CLASS/N.jpg and val/CLASS/N.jpg."""
    for seed, (split, count) in enumerate((("train", images), ("val", tests))):
        for i, (content, label) in enumerate(photographs(count, classes, seed)):
            place = folder / split / name(label)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i:06}.jpg").write_bytes(content)
    return folder


def write_shards(folder: Path, images: int, tests: int, classes: int, each: int, distinct: int = sys.maxsize) -> Path:
    """train-NNNNNN.tar and val-NNNNNN.tar with KEY.jpg and KEY.cls, `each` images in one; classes.txt beside them.

    Only so many photographs are `distinct`, a multiple of the classes; then they come again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("".join(f"{name(label)}\n" for label in range(classes)))
    for seed, (split, count) in enumerate((("train", images), ("val", tests))):
        some = photographs(min(count, distinct), classes, seed)
        made = enumerate(islice(cycle(some), count) if count > distinct else some)
        for shard in range(math.ceil(count / each)):
            with tarfile.open(folder / f"{split}-{shard:06}.tar", "w") as archive:
                for i, (content, label) in islice(made, each):
                    for extension, data in (("jpg", content), ("cls", str(label).encode())):
                        member = tarfile.TarInfo(f"{i:08}.{extension}")
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--tests", type=int, default=100)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--shards", type=int, default=0, help="images in a tar shard; 0 for class folders")
    given = parser.parse_args()
    if given.shards:
        write_shards(given.folder, given.images, given.tests, given.classes, given.shards)
    else:
        write_folders(given.folder, given.images, given.tests, given.classes)


if __name__ == "__main__":
    main()
