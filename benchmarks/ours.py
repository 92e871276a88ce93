"""The package's training step, set up for measuring: views, networks, terms, optimiser, meters, as in the loop."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sskd.data.batches import Resident
from sskd.data.feed import epoch_order
from sskd.data.source import DataInfo
from sskd.methods import METHODS
from sskd.methods.plan import Optim, Pair
from sskd.models.fold import inference_copy
from sskd.models.network import Network, create_network
from sskd.models.normalisation import Normalisation
from sskd.seeds import generator_at, mix
from sskd.train.advance import advance_of
from sskd.train.averaging import Averaging
from sskd.train.distributed import World
from sskd.train.meters import Meter
from sskd.train.optim import build_optimizer
from sskd.train.step import Execution, Losses, Step, place
from sskd.views.contrastive import Contrastive
from sskd.views.pretext import Batch
from sskd.views.rotations import rotated

NORMALISATION = Normalisation((0.5071, 0.4866, 0.4409), (0.2675, 0.2565, 0.2761), "CIFAR-100")


def random_data(size: int, classes: int, side: int = 32) -> tuple[Resident, DataInfo]:
    """Noise, of CIFAR's shape by default: what a step costs does not depend on what the images show."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, classes, (size,), generator=generator)
    names = tuple(str(n) for n in range(classes))
    mean, std = NORMALISATION.mean, NORMALISATION.std
    return Resident(pixels, labels), DataInfo("noise", size, names, labels, mean, std, (3, side, side))


class Turned(Contrastive):
    """Any number of views: the four rotations, again and again."""

    def __init__(self, views: int) -> None:
        self.views = views

    def transform(self, crops: Tensor, generator: torch.Generator, *rest: Any) -> tuple[Tensor, Tensor]:
        """Rotate the k-th crop k times."""
        return rotated(crops)


class Ours:
    """The student stage of SSKD, without the run around it: no checkpoints, no evaluation."""

    def __init__(
        self,
        teacher: str,
        student: str,
        data: Resident,
        info: DataInfo,
        batch_size: int,
        execution: Execution,
        lr: float,
        views: int = 4,
        world: World = World(),  # noqa: B008  # frozen
    ) -> None:
        torch.manual_seed(0)
        device = torch.device(execution.device)
        self.execution, self.meter = execution, Meter()
        self.data = Resident(data.pixels.to(device), data.labels.to(device))
        self.teacher, self.student = (
            create_network(name, info.class_names, info.image_shape, NORMALISATION) for name in (teacher, student)
        )
        pair = Pair(self.student.shapes(info.image_shape), self.teacher.shapes(info.image_shape), info)
        if execution.folded:
            self.teacher = inference_copy(self.teacher.eval(), info.image_shape, execution.dtype)
        self.plan = replace(METHODS["sskd"](pair, epochs=1, optim=Optim(lr=lr)), views=Turned(views))
        self.stage = self.plan.stages[-1]
        self.step = Step(self.stage, self.student, self.teacher, execution, world)
        self._enter({name: term for name, (_, term) in self.stage.loss.items()})
        trained = [p for p in self.step.parameters() if p.requires_grad]
        optimizer, averaging = build_optimizer(trained, self.stage.optim), Averaging(trained, self.step.world)
        self.advance, self.rate = advance_of(self.step, optimizer, averaging), lr
        self.order = epoch_order(len(data.labels), batch_size, (0,)).to(device)
        self.steps = 0

    def _enter(self, terms: dict[str, nn.Module]) -> None:
        modules = {"student": self.student, "teacher": self.teacher, **self.plan.modules, **terms}
        place(modules, self.execution)
        for name, module in modules.items():
            trains = name in self.stage.trains
            module.requires_grad_(trains).train(trains)

    def heads(self) -> tuple[nn.Module, nn.Module]:
        """The student's and the teacher's head."""
        head = self.stage.loss["ss"][1].get_submodule("head")
        return head, self.plan.modules["teacher_head"]

    def batch(self) -> Batch:
        """The next batch, views included; of several processes, this one's rows."""
        device, share = self.data.pixels.device, self.step.world.share
        index, generator = share.of(self.order[self.steps % len(self.order)]), generator_at(0, "student", 0, self.steps)
        crops = self.data.crops(self.data.pixels[index], self.plan.views.views, generator, share)
        dtype = torch.float64 if self.execution.precision == "fp64" else torch.float32
        images, asked = self.plan.views.transform((crops.float() / 255).to(dtype), generator)
        labels = self.data.labels[index]
        return Batch(images, labels, index, asked, torch.zeros((), device=device), {})

    def train(self, batch: Batch) -> Losses:
        """Everything that the loop does with a batch."""
        torch.manual_seed(mix(0, "student", 0, self.steps, "dropout"))
        losses = self.advance(batch, self.rate)
        self.meter.update({"total": losses.total, **losses.terms, **losses.watched}, self.steps)
        self.steps += 1
        return losses

    def __call__(self) -> None:
        """One whole step."""
        self.train(self.batch())


def refuse_uncaptured(step: object) -> None:
    """What was to be one CUDA graph and is none would be measured under the graph's name.

    Raises:
        RuntimeError: of steps that were run already, the graph was refused; why.
    """
    if refused := getattr(getattr(step, "advance", None), "refused", ""):
        raise RuntimeError(f"no CUDA graph is made of the step: {refused}")


def normalised(network: Network, images: Tensor) -> Tensor:
    """Views [B, V, C, H, W] as the network's backbone sees them."""
    return (images - network.mean) / network.std
