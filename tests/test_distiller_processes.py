"""A `Distiller` in DistributedDataParallel: two processes with halves of a batch train as one with all of it."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sskd import Distiller
from sskd.train.distributed import join
from tests.processes import together
from tests.test_distiller import LABELS, distiller, images
from tests.trainers import SIZE


def made(method: str) -> Distiller:
    """In eval mode but trainable: batch statistics of halves are not those of the whole."""
    mine = distiller(method, gather_distributed=True).double()
    mine.set_stage("student")
    for module in mine.modules():
        module.eval()
    return mine


def gradients(mine: Distiller) -> dict[str, Tensor]:
    return {name: p.grad for name, p in mine.named_parameters() if p.grad is not None}


def half(method: str) -> dict[str, Tensor]:
    world = join("cpu", SIZE, "global", "per_device")
    rows = world.share.rows(SIZE)
    mine = made(method)
    parallel = DistributedDataParallel(mine)  # without this name it is gone before the backward pass, hooks and all
    step = parallel(images()[rows].double(), LABELS[:SIZE][rows], torch.arange(SIZE)[rows])
    step.loss.backward()
    return {"loss": step.loss.detach(), **gradients(mine)}


def test_halves_of_a_batch_train_as_the_whole(tmp_path: Path) -> None:
    for method in ("sskd", "sp"):
        whole = made(method)
        loss = whole(images().double(), LABELS[:SIZE], torch.arange(SIZE)).loss
        loss.backward()
        for found in together(half, 2, tmp_path, method):
            for name, value in gradients(whole).items():
                torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-9, msg=f"{method} {name}")
