"""How many images/s each way of feeding a training step delivers, four views of each, and what bounds it.

`python -m benchmarks.pipeline --help`. Small images (3x32x32): resident on the device and cut in batches, as the
package does; the released code's PIL pipeline with several numbers of workers. Photographs (JPEG): decoded by workers
anew in each epoch; decoded once and cut from memory; and the parts of what a worker does with one, in one process.
With `--compiled true` also: the views made before the compiled step, or inside its graph.
"""

import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.as_published import FourRotations, loader
from benchmarks.inside import inside_and_outside
from benchmarks.lines import markdown
from benchmarks.ours import NORMALISATION, random_data
from benchmarks.results import RESULTS, Results, quartiles
from benchmarks.tables import pipeline_table
from benchmarks.worker import wait
from sskd.data.batches import Resident
from sskd.data.crops import Resized
from sskd.data.decode import open_image
from sskd.data.decoded import Decoded, random_crops
from sskd.data.pictures import Pictures
from sskd.seeds import generator_at
from sskd.views.contrastive import Contrastive

VIEWS = 4


@dataclass(frozen=True)
class Encoded:
    """The same few JPEGs, again and again: a `Reader`. From memory, so that no disk is measured."""

    files: tuple[bytes, ...]

    @property
    def names(self) -> "Encoded":
        """For messages about decoded images."""
        return self

    def read(self, i: int) -> bytes:
        """Number `i`."""
        return self.files[i % len(self.files)]

    def name(self, i: int) -> str:
        """For messages."""
        return f"photograph {i}"

    def identity(self, i: int) -> str:
        """For fingerprints."""
        return f"{i}"


def photographs(count: int, width: int, height: int) -> Pictures:
    """scikit-learn's two photographs, brought to this size, quality 90."""
    files = []
    for array in load_sample_images().images:
        buffer = io.BytesIO()
        Image.fromarray(array).resize((width, height)).save(buffer, format="JPEG", quality=90)
        files.append(buffer.getvalue())
    return Pictures(Encoded(tuple(files)), torch.arange(count), torch.arange(count) % 2, 3)


def rate(batches: Iterable[object], batch_size: int, device: str, untimed: int, timed: int) -> list[float]:
    """Images/s of so many batches, each by itself, after some that are not timed."""
    iterator = iter(batches)
    for _ in islice(iterator, untimed):
        pass
    found = []
    for _ in range(timed):
        wait(device)
        began = time.perf_counter()
        next(iterator)
        wait(device)
        found.append(batch_size / (time.perf_counter() - began))
    return found


def steady(batches: Iterable[object], batch_size: int, device: str, untimed: int, timed: int) -> list[float]:
    """Images/s over all of them: workers deliver in bursts, so that single batches say little."""
    iterator = iter(batches)
    for _ in islice(iterator, untimed):
        pass
    wait(device)
    began = time.perf_counter()
    for _ in islice(iterator, timed):
        pass
    wait(device)
    return [timed * batch_size / (time.perf_counter() - began)]


def endless(start: Callable[[], Iterable[object]]) -> Iterator[object]:
    """Epoch after epoch."""
    while True:
        yield from start()


def viewed(feed: Resident | Decoded, batch_size: int) -> Iterator[object]:
    """Batches of views as the loop makes them."""
    views, epoch = Contrastive(), 0
    while True:
        for cut, generator in feed.epoch(batch_size, VIEWS, (0, epoch)):
            yield views.transform(cut.pixels.float() / 255, generator)
        epoch += 1


def parts_of_decoding(pictures: Pictures, crops: Resized, count: int) -> dict[str, float]:
    """Milliseconds of one photograph in one process: reading and decoding, then cutting and resizing its four crops."""
    generator, decoding, cutting = generator_at(0), 0.0, 0.0
    for i in range(count):
        began = time.perf_counter()
        image = open_image(pictures.reader.read(i))
        decoded = time.perf_counter()
        random_crops(image, crops, VIEWS, 3, generator)
        decoding += decoded - began
        cutting += time.perf_counter() - decoded
    return {"decode": 1000 * decoding / count, "cut and resize four crops": 1000 * cutting / count}


def main(
    teacher: str = "cifar_wrn_40_2",
    student: str = "cifar_wrn_16_2",
    batch_size: int = 64,
    untimed: int = 2,
    timed: int = 10,
    images: int = 50_000,
    width: int = 500,
    height: int = 375,
    size: int = 224,
    workers: tuple[int, ...] = (0, 2),
    device: str = "cpu",
    threads: int | None = None,
    compiled: bool = False,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure the data paths and write the result as JSON.

    Args:
        teacher: of the compiled step.
        student: of the compiled step.
        batch_size: images per batch; each becomes four views.
        untimed: batches before the clock starts.
        timed: batches that are timed.
        images: size of the data set of small images.
        width: of the photographs.
        height: of the photographs.
        size: the side of the photographs' crops.
        workers: numbers of worker processes to try; 0 works in the training process.
        device: cpu, cuda, cuda:1...
        threads: of torch; what torch chooses where it is not given.
        compiled: also whether views are better made inside the compiled step.
        out: the JSON file; results/pipeline-DEVICE.json of this repository where it is not given.
    """
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    settings = {
        "teacher": teacher,
        "student": student,
        "batch_size": batch_size,
        "untimed": untimed,
        "timed": timed,
        "images": images,
        "width": width,
        "height": height,
        "size": size,
        "workers": list(workers),
        "device": device,
        "threads": threads,
        "compiled": compiled,
    }
    results = Results(out or RESULTS / f"pipeline-{device.partition(':')[0]}.json", "pipeline", settings)
    place = torch.device(device)
    data, _ = random_data(images, 100)
    pictures, crops = photographs(max(batch_size * (untimed + timed + 8), 512), width, height), Resized(size)
    given = (batch_size, device, untimed, timed)

    def keep(name: str, measure: Callable[[], list[float]]) -> None:
        if name not in results:
            results.keep(name, {"images_per_s": quartiles(measure())})

    resident = Resident(data.pixels.to(place), data.labels.to(place))
    keep("small, resident on the device", lambda: rate(viewed(resident, batch_size), *given))
    published = FourRotations(data.pixels, data.labels, NORMALISATION.mean, NORMALISATION.std)
    for count in workers:
        batches = loader(published, batch_size, count, device)
        measure = rate if count == 0 else steady
        keep(f"small, as published, {count} workers", lambda m=measure, b=batches: m(endless(lambda: b), *given))  # type: ignore[misc]
    for count in workers:
        feed, measure = Decoded(pictures, crops, place, count), rate if count == 0 else steady
        keep(f"JPEG, decoded anew, {count} workers", lambda m=measure, f=feed: m(viewed(f, batch_size), *given))  # type: ignore[misc]
    few = replace(pictures, place=pictures.place[:512], labels=pictures.labels[:512])
    once = Resident.on(few.stored(crops.stored), place, crops)
    keep("JPEG, decoded once, cut from memory", lambda: rate(viewed(once, batch_size), *given))
    if "ms of one JPEG" not in results:
        results.keep("ms of one JPEG", parts_of_decoding(pictures, crops, 4 * timed))
    if compiled and "ms per step" not in results:
        results.keep("ms per step", inside_and_outside((teacher, student), device, threads, batch_size, untimed, timed))
    print("\n\n".join(markdown(table) for table in pipeline_table(results.values)))
    return results.values


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
