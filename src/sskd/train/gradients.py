"""How the gradients of a batch come about: in one pass, or a few images at a time where they do not fit in memory."""

from collections.abc import Callable

import torch
from torch import Tensor

from sskd.methods.plan import Outputs
from sskd.train.statistics import frozen_statistics, statistics_of_part
from sskd.train.step import Losses, Step, runner
from sskd.views.pretext import Batch

Gradients = Callable[[Batch], Losses]
"""Adds a batch's gradients to the parameters', and returns what was measured."""


def gradients_of(step: Step) -> Gradients:
    """As the step's execution asks for: `micro_batch` images at a time, or all."""
    if step.execution.micro_batch:
        return InParts(step)
    run = runner(step, step.execution)

    def at_once(batch: Batch) -> Losses:
        losses = run(batch)
        torch.autograd.backward(losses.total)
        return losses

    return at_once


class InParts:
    """The whole batch's loss, with the memory of a part: similarities and banks see all images at once.

    The networks first run without gradients, part by part, and their outputs are kept; the loss of all of them, and its
    gradient for each output, are computed once; then each part runs again, with gradients, and passes its own on (as
    Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021). Exact, but that batch
    norms in training use the statistics of a part. What they remember is forgotten as slowly as without parts. It costs
    one more forward pass of the student.
    """

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, batch: Batch) -> Losses:
        """See `Gradients`."""
        parts = self._parts(batch)
        seed = torch.initial_seed()  # of this step, so that dropout is the same in both passes
        with torch.no_grad(), frozen_statistics(self.step):
            student = _joined([self._student(part, seed + i) for i, part in enumerate(parts)])
            teacher = _joined([self.step.teacher_outputs(part) for part in parts])
        leaves = {tap: value.requires_grad_() for tap, value in student.items()}
        losses = self.step.losses(leaves, teacher, batch)
        torch.autograd.backward(losses.total)
        wanted = {tap: leaf.grad for tap, leaf in leaves.items() if leaf.grad is not None}
        sizes = [len(part.labels) for part in parts]
        split = {tap: torch.split(gradient, sizes) for tap, gradient in wanted.items()}
        for i, part in enumerate(parts):
            with statistics_of_part(self.step, sizes[i] / sum(sizes)):
                outputs = self._student(part, seed + i)
            passed = [(outputs[tap], gradient[i]) for tap, gradient in split.items() if outputs[tap].requires_grad]
            if passed:
                torch.autograd.backward([value for value, _ in passed], [gradient for _, gradient in passed])
        return losses

    def _student(self, part: Batch, seed: int) -> Outputs:
        torch.manual_seed(seed)
        return self.step.student_outputs(part)

    def _parts(self, batch: Batch) -> list[Batch]:
        size = self.step.execution.micro_batch
        fields = (torch.split(values, size) for values in (batch.images, batch.labels, batch.index, batch.asked))
        split = zip(*fields, strict=True)
        return [Batch(images, labels, index, asked, batch.epoch, {}) for images, labels, index, asked in split]


def _joined(outputs: list[Outputs]) -> dict[str, Tensor]:
    return {tap: torch.cat([one[tap] for one in outputs]) for tap in outputs[0]}
