"""Whether views are better made inside the compiled step's graph than before it."""

import torch
from torch import Tensor, nn

from benchmarks.ours import Ours, random_data
from benchmarks.results import quartiles
from benchmarks.variants import FROZEN_RATE, has_bf16
from benchmarks.worker import seconds
from sskd.data.crops import Padded, _flip
from sskd.memory import sent
from sskd.train.step import Execution, Losses, Precision, Step
from sskd.views.pretext import Batch
from sskd.views.rotations import rotated

OUTSIDE, INSIDE = "views made before the compiled step", "views made inside its graph"


class WithViews(nn.Module):
    """Flips, crops and rotations, then the step; draws come in as tensors."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(self, pixels: Tensor, flipped: Tensor, top: Tensor, left: Tensor, batch: Batch) -> Losses:
        """`batch` has all but the images."""
        images, asked = rotated(Padded()._cut(_flip(pixels, flipped), top, left).float() / 255)
        losses: Losses = self.step(batch._replace(images=images, asked=asked))
        return losses


def backward(losses: Losses) -> Losses:
    """Adds the gradients."""
    torch.autograd.backward(losses.total)
    return losses


def inside_and_outside(
    pair: tuple[str, str], device: str, threads: int, batch_size: int, untimed: int, timed: int
) -> dict[str, list[float]]:
    """Milliseconds per step, quartiles, of both, by turns. `pair`: teacher, student."""
    data, info = random_data(max(512, batch_size), 100)
    precision: Precision = "bf16" if has_bf16(device) else "fp32"
    execution = Execution(device, precision, channels_last=True, folded=True, compiled=True, threads=threads)
    outside, inside = (Ours(*pair, data, info, batch_size, execution, FROZEN_RATE) for _ in range(2))
    whole = torch.compile(WithViews(inside.step), fullgraph=True, dynamic=False)
    size = len(inside.order[0])

    def step_inside() -> None:
        generator = torch.Generator().manual_seed(inside.steps)
        flipped = sent(torch.rand(size, generator=generator) < 0.5, torch.device(device))
        top, left = sent(torch.randint(0, 9, (2, size, 4), generator=generator), torch.device(device))
        index = inside.order[inside.steps % len(inside.order)]
        batch = Batch(torch.empty(0, device=device), inside.data.labels[index], index, index, index[0].float(), {})
        inside.advance.gradients = lambda made: backward(whole(inside.data.pixels[index], flipped, top, left, made))
        inside.train(batch)

    found: dict[str, list[float]] = {OUTSIDE: [], INSIDE: []}
    for i in range(untimed + timed):
        for name, step in ((OUTSIDE, outside), (INSIDE, step_inside)):
            took = 1000 * seconds(step, 1, device)
            if i >= untimed:
                found[name].append(took)
    return {name: quartiles(values) for name, values in found.items()}
