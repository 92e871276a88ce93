"""Attention transfer, pixel by pixel: Zagoruyko and Komodakis 2017, equation 2 (activation-based, p = 2)."""

import torch
from torch import Tensor


def unit(vector: Tensor) -> Tensor:
    """A vector [D] over its length, the length no less than 1e-12."""
    squares = (vector * vector).sum()
    return vector / torch.sqrt(squares) if squares.item() > 1e-24 else vector / 1e-12


def pooled(maps: Tensor, height: int, width: int) -> Tensor:
    """Averages of the windows floor(i H / h) to ceil((i + 1) H / h) of maps [B, C, H, W], and so along the width."""
    rows = []
    for i in range(height):
        top, bottom = i * maps.shape[2] // height, -(-(i + 1) * maps.shape[2] // height)
        row = []
        for j in range(width):
            left, right = j * maps.shape[3] // width, -(-(j + 1) * maps.shape[3] // width)
            total = torch.zeros(maps.shape[:2], dtype=torch.float64)
            for y in range(top, bottom):
                for x in range(left, right):
                    total = total + maps[:, :, y, x]
            row.append(total / ((bottom - top) * (right - left)))
        rows.append(torch.stack(row, dim=2))
    return torch.stack(rows, dim=2)


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps in the smaller one's height and width."""
    height, width = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
    first, second = (m if m.shape[2:] == (height, width) else pooled(m, height, width) for m in (a, b))
    return first, second


def attention_map(image: Tensor) -> Tensor:
    """One image [C, H, W] -> [H W]: the mean over channels of the squares, as a vector of length 1."""
    pixels = []
    for row in image.unbind(1):
        pixels += [(pixel * pixel).sum() / len(pixel) for pixel in row.unbind(1)]
    return unit(torch.stack(pixels))


def stage(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean over images and pixels of the squared difference of two maps' attention."""
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for s, t in zip(*same_size(student_map, teacher_map), strict=True):
        for a, b in zip(attention_map(s).unbind(), attention_map(t).unbind(), strict=True):
            total = total + (a - b) * (a - b)
            count += 1
    return total / count


def attention(student_maps: list[Tensor], teacher_maps: list[Tensor]) -> Tensor:
    """The stages' losses, summed."""
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(student_maps, teacher_maps, strict=True):
        total = total + stage(s, t)
    return total
