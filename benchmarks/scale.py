"""What a thousand GPUs would do with a billion images: reckoned from constants, nothing of it is measured.

`python -m benchmarks.tables results/constants-cpu.json` prints it below what it starts from, for `docs/scale.md`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

GPUS, IMAGES, EACH = 1000, 1_000_000_000, 32
"""GPUs, images, and images of each GPU in a step."""
BATCH = GPUS * EACH
VIEWS, WIDTH, CLASSES = 4, 512, 1000
"""Of a step of SSKD, resnet34 -> resnet18: both networks have as many pooled values, and heads with as many outputs."""
TRAINED = 11_689_512 + 2 * (WIDTH * WIDTH + WIDTH)
"""Numbers that are trained: resnet18 and the head's two linear layers."""
NORMS = 20
"""Batch norms of resnet18."""
NEGATIVES, BANK = 16_384, 128
"""Of CRD: rows that a batch is compared with, and numbers of a row."""
IMAGENET = 1_281_167
STEP = "resnet34:resnet18 at 224"
"""The measured step whose operations are counted."""


class Constant(NamedTuple):
    """What is not measured here: its value in a base unit, as it is said, and where it is from."""

    value: float
    said: str
    source: str


ASSUMED = {
    "a photograph as it lies on the disk": Constant(
        147_897_477_120 / IMAGENET, "115 KB", "ILSVRC2012's training archive: 147.9 GB, 1,281,167 images"
    ),
    "a GPU's useful rate on these networks, bf16": Constant(
        200e12,
        "200 TFLOP/s",
        "a fifth of an H200's 989 (data sheet, dense). The one step measured on an H200 made 61 (table of the step in "
        "`docs/performance.md`: 322.8 GFLOP in 5.3 ms), with 32-pixel images and two graphs",
    ),
    "a GPU's own link to the network": Constant(50e9, "50 GB/s", "400 Gb/s InfiniBand for each GPU, as in a DGX H200"),
    "a small message among all": Constant(
        50e-6, "50 µs", "ten hops (a tree of 1,024) of 5 µs each; not taken from a measurement"
    ),
    "hours of one GPU between two failures of the job": Constant(
        16_384 * 54 * 24 / 419,
        "51,000 h",
        "Llama 3 (Dubey et al. 2024, section 3.3.4): 419 unexpected interruptions of 16,384 GPUs in 54 days",
    ),
}


def spelled(value: float, unit: str) -> str:
    """With three digits, and the unit's usual multiples."""
    scales: Mapping[str, Sequence[tuple[float, str]]] = {
        "B": ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (0, "B")),
        "FLOP": ((1e12, "TFLOP"), (0, "FLOP")) if value >= 1e12 else ((1e9, "GFLOP"), (0, "FLOP")),
        "s": ((86_400, "days"), (3600, "h"), (60, "min"), (1, "s"), (0, "ms")),
    }
    if unit not in scales:
        return f"{_digits(value)} {unit}".strip()
    scale, name = next((scale, name) for scale, name in scales[unit] if value >= scale)
    return f"{_digits(value / (scale or (1e-3 if unit == 's' else 1)))} {name}"


def _digits(value: float) -> str:
    """Three of them: 1234 as 1,230, 12.34 as 12.3."""
    if value == 0:
        return "0"
    rounded = round(value, 2 - math.floor(math.log10(abs(value))))
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"


class Known(NamedTuple):
    """What the rest is made of: per GPU, per core, in base units."""

    work: float  # FLOP of an image
    rate: float
    link: float
    message: float
    photograph: float
    between: float  # seconds of one GPU
    written: float
    decoded: Mapping[int, float]  # images/s, by the number of crops

    @property
    def images(self) -> float:
        """Of a GPU, each second."""
        return self.rate / self.work


Row = tuple[str, str, float, str]
"""What is asked, what it is made of, its value, its unit."""


def known(parts: Mapping[str, Any]) -> Known:
    """From a file of `benchmarks.constants`."""
    photograph, rate, link, message, hours = (constant.value for constant in ASSUMED.values())
    return Known(
        1e9 * parts[STEP]["gflop_per_image"],
        rate,
        link,
        message,
        photograph,
        3600 * hours,
        1e6 * parts["checkpoints"]["checkpoint_mb_per_s"],
        {crops: parts["decoding"][f"decoded_{crops}_crops_per_s"] for crops in (0, 1, 4)},
    )


def computing(k: Known) -> Iterator[Row]:
    """If nothing else holds the GPUs."""
    yield "FLOP of an image", "four views through both networks, back through one", k.work, "FLOP"
    yield "images/s of a GPU", "its rate / that", k.images, ""
    yield "a step of 32 images on each", "32 / that", EACH / k.images, "s"
    yield "a billion images on 1,000 GPUs", "", IMAGES / k.images / GPUS, "s"
    yield "the batch, B", "1,000 x 32", BATCH, "images"


def messages(k: Known) -> Iterator[Row]:
    """Of a step, as it is today."""
    pooled, logits = (4 * BATCH * VIEWS * 2 * width for width in (WIDTH, CLASSES))
    back, gradients = (pooled + logits) / 2, 2 * 4 * TRAINED
    yield "gradients, all-reduced", f"2 x {TRAINED / 1e6:.1f} million x 4 B", gradients, "B"
    yield "pooled values of both networks, gathered", "B x 4 views x 2 x 512 x 4 B", pooled, "B"
    yield "logits of both, gathered", "B x 4 x 2 x 1,000 x 4 B", logits, "B"
    yield "gradients of the student's half, back", "", back, "B"
    yield "together", "sum / link", (gradients + pooled + logits + back) / k.link, "s"
    yield "synchronised batch norms", f"{NORMS} norms, one small message each way", 2 * NORMS * k.message, "s"


def similarity(k: Known) -> Iterator[Row]:
    """Of one network, as every process computes it."""
    for size in (256, 4096, BATCH):
        yield f"the matrix of B = {size:,}", "3B x B x 4 B", 4 * 3 * size * size, "B"
    yield "its product", "2 x 3B x B x 512", 2 * 3 * BATCH * BATCH * WIDTH, "FLOP"


def sharded(k: Known) -> Iterator[Row]:
    """If each process kept its own rows of the matrix."""
    columns, ranks = 4 * BATCH * 2 * WIDTH, 8 * 3 * BATCH
    whole = 2 * 4 * TRAINED + columns + ranks + columns / 2
    yield "heads' outputs of the plain images, gathered", "B x 2 networks x 512 x 4 B", columns, "B"
    yield "their gradient, reduce-scattered", "B x 512 x 4 B", columns / 2, "B"
    yield "ranks of all rows, gathered", "3B x 8 B", ranks, "B"
    yield "a process's part of the matrix", "3 x 32 x B x 4 B", 4 * 3 * EACH * BATCH, "B"
    yield "its product", "2 x 3 x 32 x B x 512", 2 * 3 * EACH * BATCH * WIDTH, "FLOP"
    yield "together, with the gradients", "sum / link", whole / k.link, "s"


def reading(k: Known) -> Iterator[Row]:
    """Photographs, and what is held of each."""
    yield "cores that decode for a GPU, four crops", "images/s / measured rate", k.images / k.decoded[4], ""
    yield "one crop for all views", "", k.images / k.decoded[1], ""
    yield "from the disks, each second", "images/s x a photograph x 1,000", GPUS * k.images * k.photograph, "B"
    yield "all photographs", "", IMAGES * k.photograph, "B"
    yield "the trial decode before a run", "images / measured rate", IMAGES / k.decoded[0] / 3600, "core-hours"
    yield "an epoch's order, on every process", "8 B an image", 8 * IMAGES, "B"
    yield "numbers and labels", "16 B an image", 16 * IMAGES, "B"


def banks(k: Known) -> Iterator[Row]:
    """Of CRD, two for each image."""
    for name, size in (("ImageNet's", IMAGENET), ("a billion's", IMAGES)):
        yield f"{name} banks", "images x 2 x 128 x 4 B", 4 * 2 * BANK * size, "B"
    yield "negatives gathered, if banks are sharded", "16,384 x 2 x 128 x 4 B", 4 * 2 * BANK * NEGATIVES, "B"
    yield "updates sent", "B x 2 x 128 x 4 B", 4 * 2 * BANK * BATCH, "B"


def failures(k: Known) -> Iterator[Row]:
    """And checkpoints."""
    kept, between, usual = 3 * 4 * TRAINED, k.between / GPUS, 600
    writing = kept / k.written
    yield "one failure in", "hours of one GPU / 1,000", between, "s"
    yield "with 8 GPUs", "", k.between / 8, "s"
    yield "a checkpoint", "weights, momentum, best weights", kept, "B"
    yield "to write it, while all wait", "that / measured rate", writing, "s"
    yield "the best interval", "Young: sqrt(2 x writing x one failure in)", math.sqrt(2 * writing * between), "s"
    yield "every 10 minutes: lost in writing", "", 100 * writing / usual, "%"
    yield "and in work done again", "5 minutes / one failure in", 100 * usual / 2 / between, "%"


def eight(k: Known) -> Iterator[Row]:
    """What people have."""
    yield "images/s", "", 8 * k.images, ""
    yield "an epoch", "", IMAGENET / 8 / k.images, "s"
    yield "cores that decode as fast, four crops", "images/s / measured rate", 8 * k.images / k.decoded[4], ""


SECTIONS = {
    "Computing": computing,
    "Messages of a step": messages,
    "The global similarity": similarity,
    "Its sharded form": sharded,
    "Reading and decoding": reading,
    "CRD's banks": banks,
    "Failures": failures,
    "8 GPUs, ImageNet": eight,
}


def reckoned(parts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is asked, what it is made of, and what comes out; each section begins with its name alone.

    Args:
        parts: of a file of `benchmarks.constants`, with resnet34 -> resnet18 at 224 pixels.
    """
    found, rows = known(parts), list[tuple[str, str, str]]()
    for section, asked in SECTIONS.items():
        rows.append((f"**{section}**", "", ""))
        rows += [(name, how, spelled(value, unit)) for name, how, value, unit in asked(found)]
    return rows
