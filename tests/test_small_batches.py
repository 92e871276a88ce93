"""Batches of a single image: trained where that means something, else refused before any training."""

from functools import partial
from typing import Any

import pytest
import torch

from sskd.errors import UserError
from sskd.jobs.room import with_room
from sskd.jobs.small import refuse_small_batches
from sskd.methods import METHODS
from sskd.settings import Training
from sskd.train.trial import Work
from tests.trainers import SHAPE, build


def tried(
    method: str, student: str = "cifar_resnet8", images: int = 12, side: int = SHAPE[-1], **training: Any
) -> None:
    trainer = build(METHODS[method], networks=("cifar_resnet8", student), side=side)
    work = Work(trainer.student, trainer.teacher, trainer.plan, 1, (3, side, side))
    refuse_small_batches(method, Training(**training), images, work)


@pytest.mark.parametrize("method", ["sp", "cc", "rkd", "pkt", "irg", "dist", "sskd"])
def test_methods_that_compare_images_need_two(method: str) -> None:
    with pytest.raises(
        UserError, match=rf"The method {method} compares the images .* a batch of 1 has nothing to comp"
    ):
        tried(method, batch_size=1)
    with pytest.raises(UserError, match="nothing to compare"):
        tried(method, images=1)
    tried(method, batch_size=2)
    tried(method, batch_size=2, micro_batch=1)  # the terms see both


@pytest.mark.parametrize("method", ["ce", "kd", "crd"])
def test_others_learn_from_one(method: str) -> None:
    """CRD compares with the images that it remembers."""
    tried(method, batch_size=1)


def test_norms_need_more_than_one_value() -> None:
    deep = partial(tried, "ce", "resnet10t", side=16)
    for training, reason in (
        (
            {"batch_size": 1},
            r"In the stage train a batch norm would get a single image, whose map.* Give --batch_size 2,",
        ),
        ({"batch_size": 5, "micro_batch": 1}, r"\(of 5 images, 1 at a time\).* Give another --micro_batch than 1,"),
        ({"batch_size": 5, "micro_batch": 2}, r"\(of 5 images, 2 at a time\).* Give another --micro_batch than 2,"),
    ):
        with pytest.raises(UserError, match=reason):
            deep(**training)
    deep(batch_size=2)
    deep(batch_size=4, micro_batch=2)
    tried("ce", "resnet10t", side=64, batch_size=1)  # maps of 2x2 at the end


def test_a_norm_with_one_value_within_a_run_is_explained() -> None:
    norm = torch.nn.BatchNorm1d(3)
    with pytest.raises(UserError, match=r"A norm got one value for each channel.* Give it more images at a time"):
        with_room(lambda: norm(torch.rand(1, 3)))
