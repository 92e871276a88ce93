"""Every method on pairs of timm's and torchvision's networks: a step is made, or the pair is refused by name."""

from functools import partial
from typing import Any

import pytest
import torch

from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.options import options_of
from tests.trainers import batch_at, build, steps_of

FOUR = ("stage1", "stage2", "stage3", "stage4")
# Teacher, student, side of the images, and the methods that refuse the pair: with unequal channels, with tails that
# are not known, tokens instead of maps, or activations that are no modules of their own.
PAIRS: list[tuple[str, str, int, set[str]]] = [
    ("resnet18", "resnet10t", 32, {"one", "hsakd"}),
    ("resnet10t", "mobilenetv3_small_050", 64, {"fsp", "kdsvd", "one", "hsakd"}),
    ("torchvision:resnet18", "regnetx_002", 64, {"fsp", "kdsvd", "one", "hsakd"}),
    ("convnext_atto", "torchvision:shufflenet_v2_x0_5", 64,
     {"at", "vid", "nst", "ab", "fsp", "kdsvd", "reviewkd", "one", "hsakd"}),  # four stages against three
    ("cifar_vgg8", "cifar_mobilenet_v2", 32, {"fsp", "kdsvd"}),
    ("cifar_wrn_16_1", "cifar_shufflenet_v1", 32, {"fsp", "kdsvd"}),
    ("test_vit", "cifar_resnet8", 160,
     {"fitnet", "at", "sp", "vid", "ab", "ft", "fsp", "nst", "kdsvd", "irg", "reviewkd", "hsakd"}),  # tokens
]  # fmt: skip


def one_step(method: str, teacher: str, student: str, side: int) -> None:
    given: dict[str, Any] = {"kd_weight": 1.0} if "kd_weight" in options_of(METHODS[method]) else {}
    trainer = build(partial(METHODS[method], **given), networks=(teacher, student), side=side)
    for run, step, parameters in steps_of(trainer):
        losses = step(batch_at(run, 0))
        losses.total.backward()
        grads = [p.grad for p in parameters if p.grad is not None]
        assert losses.total.isfinite() and grads and all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize(("teacher", "student", "side", "refused"), PAIRS)
def test_pair(teacher: str, student: str, side: int, refused: set[str]) -> None:
    found: dict[str, str] = {}
    for method in METHODS:
        torch.manual_seed(0)
        try:
            one_step(method, teacher, student, side)
        except UserError as error:
            found[method] = str(error)
    assert found.keys() == refused, found
    for method, message in found.items():
        assert method in message or "copies what follows" in message
        assert "--" in message or "Choose" in message or "use another" in message, "a way out"
