"""Views and questions one image at a time. Colours as torchvision changes a single image; the rest by hand."""

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from tests.oracles.kd import divergence

Image = NDArray[np.float64]
TRIES = 10


def transformed(crops: Tensor, names: Sequence[str], seed: int) -> tuple[Tensor, list[list[int]]]:
    """Views [B, V, C, S, S] of crops, and what was done to each, by the draws of a generator."""
    generator, (size, views), side = torch.Generator().manual_seed(seed), crops.shape[:2], crops.shape[-1]
    count = size * (views - 1)
    kinds = torch.randint(len(names), (size, views - 1), generator=generator).flatten().tolist()
    drawn = {}
    for name in names:
        if name == "rotation":
            drawn[name] = torch.randint(1, 4, (count, 1), generator=generator)
        if name == "crop_resize":
            drawn[name] = torch.rand(4, TRIES, count, generator=generator, dtype=torch.float64).permute(2, 0, 1)
        if name == "colour_distortion":
            drawn[name] = torch.rand(count, 8, generator=generator, dtype=torch.float64)
    made, asked = crops.clone(), [[0] * views for _ in range(size)]
    for i in range(size):
        for k in range(1, views):
            at = i * (views - 1) + k - 1
            name = names[kinds[at]]
            values = drawn[name][at].tolist() if name in drawn else []
            made[i, k], asked[i][k] = one(crops[i, k], name, values, side)
    return made, asked


def one(image: Tensor, name: str, drawn: list, side: int) -> tuple[Tensor, int]:  # type: ignore[type-arg]
    """One image [C, S, S], changed."""
    if name == "rotation":
        return torch.from_numpy(np.rot90(image.numpy(), drawn[0], (1, 2)).copy()), drawn[0]
    if name == "colour_dropping":
        return tv.rgb_to_grayscale(image, 3), 4
    if name == "crop_resize":
        return torch.from_numpy(zoomed(image.numpy(), box(drawn, side))), 5
    return coloured(image, drawn), 6


def box(drawn: list[list[float]], side: int) -> tuple[float, float, float, float]:
    """The first of the drawn boxes that fits; where none does, the first, squeezed in."""
    found = []
    for area, ratio, x, y in zip(*drawn, strict=True):
        share, aspect = 0.08 + 0.92 * area, math.exp(math.log(3 / 4) + ratio * math.log(16 / 9))
        found.append((math.sqrt(share * side**2 * aspect), math.sqrt(share * side**2 / aspect), x, y))
    wide, tall, x, y = next((one for one in found if max(one[:2]) <= side), found[0])
    wide, tall = min(wide, side), min(tall, side)
    return x * (side - wide), y * (side - tall), wide, tall


def zoomed(image: Image, where: tuple[float, float, float, float]) -> Image:
    """A box resized to the image's size, bilinear, pixel by pixel."""
    left, top, wide, tall = where
    side, made = image.shape[-1], np.empty_like(image)
    for row in range(side):
        for column in range(side):
            y, x = (
                start + length * (at + 0.5) / side - 0.5
                for start, length, at in ((top, tall, row), (left, wide, column))
            )
            y, x = (min(max(value, 0.0), side - 1.0) for value in (y, x))
            y0, x0 = min(int(y), side - 2), min(int(x), side - 2)
            b, a = y - y0, x - x0
            upper = (1 - a) * image[:, y0, x0] + a * image[:, y0, x0 + 1]
            lower = (1 - a) * image[:, y0 + 1, x0] + a * image[:, y0 + 1, x0 + 1]
            made[:, row, column] = (1 - b) * upper + b * lower
    return made


def coloured(image: Tensor, drawn: list[float]) -> Tensor:
    """ColorJitter(.8, .8, .8, .2)'s four changes in the order of the last four numbers."""
    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for at in sorted(range(4), key=lambda i: drawn[4 + i]):
        factor = 0.2 + 1.6 * drawn[at] if at < 3 else -0.2 + 0.4 * drawn[at]
        if len(image) == 3 or at < 2:
            image = changes[at](image, factor)
    return image


def puzzled(image: Image, order: int) -> Image:
    """An image [C, H, W] with its quarters in one of the 24 orders; an odd middle row or column stays."""
    made, (height, width) = image.copy(), image.shape[1:]
    h, w = height // 2, width // 2
    corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w)]
    for place, quarter in enumerate([*permutations(range(4))][order]):
        (top, left), (y, x) = corners[place], corners[quarter]
        made[:, top : top + h, left : left + w] = image[:, y : y + h, x : x + w]
    return made


def answered(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T^2 KL of the two heads' answers, row by row, none left out."""
    rows = [divergence(t, s, temperature) for t, s in zip(teacher, student, strict=True)]
    return torch.stack(rows).mean()


def right(rows: Tensor, answers: Sequence[int]) -> float:
    """Share of rows whose right answer nothing beats."""
    return sum(row[a] >= row.max() for row, a in zip(rows, answers, strict=True)) / len(answers)
