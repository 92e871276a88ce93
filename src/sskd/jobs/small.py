"""Batches that are too small: for a method that compares images, or for batch norms."""

import torch

from sskd.errors import UserError
from sskd.methods.plan import Plan, compares_images
from sskd.settings import Training
from sskd.train.distributed import launched
from sskd.train.step import Execution
from sskd.train.trial import Work, time_step


def refuse_small_batches(method: str, training: Training, images: int, work: Work) -> None:
    """Refuse batches of one image where they mean nothing or cannot be normalised. `images`: of an epoch.

    Whether a batch norm would get one value for each channel is tried, by a step of each stage on copies, and only
    where a part of a batch is a single image in a single view. `work`: whatever its batch size.

    Raises:
        UserError: names what is too small, and the option.
    """
    whole, processes = min(training.batch_size, images), launched().size
    own = whole // processes
    _refuse_nothing_to_compare(method, work.plan, whole if training.relations == "global" else own)
    size = training.micro_batch if 0 < training.micro_batch < own else own
    smallest = own % size or size
    if smallest * work.plan.views.views > 1 or (processes > 1 and training.batch_norm == "synchronised"):
        return
    if size == own:
        execution, batch_size, option = Execution(), 1, f"--batch_size {2 * processes}"
    else:  # terms see the whole batch, networks one image at a time
        execution, batch_size, option = Execution(micro_batch=1), 2, f"another --micro_batch than {size}"
    with torch.random.fork_rng(devices=[]):
        for which, stage in enumerate(work.plan.stages):
            try:
                time_step(execution, work._replace(batch_size=batch_size), repeats=1, which=which)
            except ValueError as error:
                if not one_value(error):
                    raise
                parts = f" (of {own} images, {size} at a time)" if size != own else ""
                raise UserError(
                    f"In the stage {stage.name} a batch norm would get a single image{parts}, whose map is 1x1 there: "
                    f"one value for each channel has no variance. Give {option}, or larger images."
                ) from error


def _refuse_nothing_to_compare(method: str, plan: Plan, together: int) -> None:
    """Refuse a single image in a batch where terms compare the images of a batch and remember no others."""
    terms = (item for stage in plan.stages for item in stage.loss.items())
    for name, (_, term) in terms:
        if together < 2 and compares_images(term):
            raise UserError(
                f"The method {method} compares the images of a batch with each other (its term {name}), and a batch of "
                "1 has nothing to compare, so the loss and its accuracy mean nothing. Give --batch_size 2 or "
                "more (for each process, with --relations per_device)."
            )


def one_value(error: ValueError) -> bool:
    """Whether this is what torch says where a norm in training gets one value for each channel."""
    return "Expected more than 1 value per channel when training" in str(error)
