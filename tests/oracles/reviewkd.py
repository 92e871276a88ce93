"""Knowledge review, entry by entry: Chen et al. 2021 (CVPR)."""

import torch
from torch import Tensor


def averaged(maps: Tensor, side: int) -> Tensor:
    """Maps [B, C, H, H] averaged to side x side, H a multiple of it."""
    step = maps.shape[-1] // side
    cells = [
        [maps[..., y * step : (y + 1) * step, x * step : (x + 1) * step].mean((-2, -1)) for x in range(side)]
        for y in range(side)
    ]
    return torch.stack([torch.stack(row, -1) for row in cells], -2)


def context(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL of two maps: their own size with weight 1, then 4, 2 and 1 with 1/2, 1/4, 1/8, of those that are smaller."""
    sides = [student.shape[-1], *(side for side in (4, 2, 1) if side < student.shape[-1])]
    parts = [((averaged(student, side) - averaged(teacher, side)) ** 2).mean() for side in sides]
    weights = [0.5**i for i in range(len(parts))]
    return torch.stack([w * part for w, part in zip(weights, parts, strict=True)]).sum() / sum(weights)


def normalised(maps: Tensor) -> Tensor:
    """Batch norm in training, without its affine part."""
    mean = maps.mean((0, 2, 3), keepdim=True)
    return (maps - mean) / (((maps - mean) ** 2).mean((0, 2, 3), keepdim=True) + 1e-5) ** 0.5


def enlarged(maps: Tensor, side: int) -> Tensor:
    """Nearest neighbours."""
    rows = [int(i * maps.shape[-1] / side) for i in range(side)]
    return maps[..., rows, :][..., rows]


def fused(maps: Tensor, deeper: Tensor | None, first: Tensor, attention: tuple[Tensor, Tensor] | None) -> Tensor:
    """A stage's map by a 1x1 convolution and batch norm, mixed with the deeper one by two attention maps."""
    own = normalised(torch.einsum("dc,bchw->bdhw", first[:, :, 0, 0], maps))
    if deeper is None or attention is None:
        return own
    other = enlarged(deeper, own.shape[-1])
    raw = torch.einsum("dc,bchw->bdhw", attention[0][:, :, 0, 0], torch.cat([own, other], 1))
    share = 1 / (1 + torch.exp(-(raw + attention[1].view(1, 2, 1, 1))))
    return own * share[:, :1] + other * share[:, 1:]
