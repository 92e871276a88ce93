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


METHODS = ("sskd", "sp")


def halves() -> dict[str, dict[str, Tensor]]:
    """This process's gradients, by method."""
    rows = join("cpu", SIZE, "global", "per_device").share.rows(SIZE)
    found = {}
    for method in METHODS:
        mine = made(method)
        parallel = DistributedDataParallel(mine)  # without a name it is gone before the backward pass, hooks and all
        parallel(images()[rows].double(), LABELS[:SIZE][rows]).loss.backward()
        found[method] = gradients(mine)
    return found


def test_halves_of_a_batch_train_as_the_whole(tmp_path: Path) -> None:
    expected = {}
    for method in METHODS:
        whole = made(method)
        whole(images().double(), LABELS[:SIZE]).loss.backward()
        expected[method] = gradients(whole)
    for found in together(halves, 2, tmp_path):
        for method, values in expected.items():
            for name, value in values.items():
                torch.testing.assert_close(found[method][name], value, rtol=1e-6, atol=1e-9, msg=f"{method} {name}")
