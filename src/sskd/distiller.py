"""`Distiller`: any method of the registry as a module for your own training loop."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from torch import Tensor, nn

from sskd import distiller_checks as checks
from sskd.data.feed import Share
from sskd.data.source import DataInfo
from sskd.errors import UserError, unknown
from sskd.files import make_folder, write_atomic
from sskd.jobs.assemble import pair_of
from sskd.memory import all_sent
from sskd.methods.find import find_method
from sskd.methods.options import check_options
from sskd.methods.plan import Optim, Stage
from sskd.models.checkpoints import save_network
from sskd.models.network import Network
from sskd.seeds import mix
from sskd.tensor_files import read_tensor_file, tensor_file
from sskd.train.distributed import World
from sskd.train.step import Execution, Losses, Step, autocast_as_now, make_trainable
from sskd.validation import convert
from sskd.views.pretext import Batch


class Distillation(NamedTuple):
    """What a step of a `Distiller` returns. Detach `terms`, `metrics` and `logits` to log them."""

    loss: Float[Tensor, ""]  # the weighted sum: call backward on it
    terms: dict[str, Float[Tensor, ""]]  # unweighted, by name
    metrics: dict[str, Float[Tensor, ""]]  # shares of the batch: top1, top5 and what terms measure
    logits: Float[Tensor, "B K"] | None  # the student's on the plain view; None in a stage that trains no student


class Distiller(nn.Module):
    """Any distillation method for your own training loop: it makes the views, runs both networks, returns the loss.

    A method has one stage or several (`stages`: SSKD trains the teacher's head first). For each, call `set_stage`, give
    `trainable_parameters()` to a new optimizer, and train as usual. The teacher is frozen and in eval mode whatever you
    call. `state_dict()` holds the student, heads and memories, not the teacher. Works under autocast, torch.compile,
    gradient accumulation and DistributedDataParallel (wrap it after `set_stage`).

    Args:
        student: trained in place. Its output may be logits, or an object or dict with `logits`.
        teacher: None for methods that need none.
        method: a name of `sskd list methods`, or MODULE:FUNCTION.
        num_classes: logits of both networks, in the same order of classes.
        image_shape: channels, height and width of the images that the networks are given.
        epochs: of the student's stage; what a method scales with it or warms up, does so by `set_epoch`.
        options: the method's own, such as {"ratio_tf": 0.5}.
        labels: [N], of all training images, for methods that remember each image by its number (crd).
        mean: per channel. With it and `std`, images are in [0, 1] and normalised here, for both networks alike; without
            them images are taken as normalised by you, and views that change colours are refused.
        std: see mean.
        seed: of heads and adapters, and of what is drawn for views.
        student_taps: modules at which the method reads the student, {NAME: MODULE}, beside those found.
        teacher_taps: see student_taps.
        gather_distributed: with several processes, losses that relate images see the whole batch of all of them.

    Raises:
        UserError: networks, options or views that do not fit the method.

    Example:
        >>> import timm
        >>> student, teacher = (timm.create_model(name, num_classes=10) for name in ("cifar_resnet8", "cifar_resnet20"))
        >>> distiller = Distiller(student, teacher, num_classes=10, image_shape=(3, 32, 32))
        >>> distiller.set_stage("student")
        >>> distiller(torch.rand(8, 3, 32, 32), torch.arange(8)).loss.backward()
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        method: str = "sskd",
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        epochs: int = 240,
        options: Mapping[str, Any] | None = None,
        labels: Int64[Tensor, "N"] | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        seed: int = 0,
        student_taps: Mapping[str, str] | None = None,
        teacher_taps: Mapping[str, str] | None = None,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        checks.check_networks(student, teacher, num_classes, epochs)
        given = convert(dict(options) if isinstance(options, Mapping) else options or {}, dict[str, Any], "options")
        self.method, self.image_shape, self.num_classes = method, image_shape, num_classes
        self.normalises = mean is not None
        stated = checks.normalisation_of(mean, std, image_shape[0])
        self.student_network = checks.wrapped(student, "student", stated, num_classes, student_taps)
        self.teacher_network = (
            checks.wrapped(teacher, "teacher", stated, num_classes, teacher_taps) if teacher else None
        )
        known = torch.empty(0, dtype=torch.int64) if labels is None else labels
        info = DataInfo(
            "the loop", len(known), self.student_network.class_names, known, stated.mean, stated.std, image_shape
        )
        make = find_method(method)
        check_options(make, method, given)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, "method"))  # the seed of `sskd distill`, so that heads are the same
            pair = pair_of(self.student_network, self.teacher_network, info)
            self.plan = make(pair, epochs=epochs, optim=Optim(lr=0.05), **given)
        self.shared_modules = nn.ModuleDict(dict(self.plan.modules))
        terms = {f"in_{s.name}": nn.ModuleDict({n: t for n, (_, t) in s.loss.items()}) for s in self.plan.stages}
        self.terms = nn.ModuleDict(terms)
        self.stages: tuple[Stage, ...] = self.plan.stages
        self.notes: tuple[str, ...] = self.plan.notes  # worth knowing: memory, lengths that were scaled
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 0
        self.relations = "global" if gather_distributed else "per_device"
        checks.check_views(self.plan.views, self.normalises)
        self.register_state_dict_post_hook(_without_teacher)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_teacher_is_not_missed)  # type: ignore[no-untyped-call]
        self.set_stage(self.stages[0].name)

    @property
    def student(self) -> nn.Module:
        """Your student."""
        return self.student_network.backbone

    def set_stage(self, name: str) -> None:
        """Begin a stage: freeze everything, make what it trains trainable and put it in train mode.

        Raises:
            UserError: there is no such stage.
        """
        found = [stage for stage in self.stages if stage.name == name]
        if not found:
            raise unknown(f"stage of {self.method}", name, [stage.name for stage in self.stages])
        if "_step" in self.__dict__:
            self.__dict__["_step"].close()
        (self.stage,) = found
        self.epoch = 0
        step = Step(self.stage, self.student_network, self.teacher_network, Execution(), self._world())
        self.__dict__["_step"] = step  # no submodule: what it runs is registered here
        self._labels_unseen = True
        self.train()

    def set_epoch(self, epoch: int) -> None:
        """Say how many epochs of this stage are done, for weights that warm up (dkd, rld, one)."""
        self.epoch = epoch

    def train(self, mode: bool = True) -> "Distiller":
        """Put what the stage trains in train mode, and all else, the teacher above all, in eval mode."""
        make_trainable(self.stage, self._named())
        self.training = mode
        if not mode:
            for module in self._named().values():
                module.eval()
        return self

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What this stage trains: the student and whatever the method adds to it, or a head. For your optimizer."""
        return [p for name in self.stage.trains for p in self._named()[name].parameters()]

    def forward(
        self,
        images: Float[Tensor, "B C H W"] | Float[Tensor, "B V C H W"],
        labels: Int64[Tensor, "B"],
        index: Int64[Tensor, "B"] | None = None,
    ) -> Distillation:
        """The loss of a batch.

        Args:
            images: one augmented crop of each image, of which all views are made; or as many crops as there are views,
                as the published recipe has them. In [0, 1] where `mean` and `std` were given, else normalised.
            labels: class numbers.
            index: the images' numbers in the training set, for methods that remember them.

        Raises:
            UserError: images of another shape; a network in the wrong mode; no index where one is needed.
        """
        teacher, step = self.teacher_network, self.__dict__["_step"]
        checks.check_images(self.method, images, labels, self.plan.views.views, self.image_shape)
        together = len(images) * (step.world.size if self.relations == "global" else 1)
        checks.check_ready(self.method, teacher and teacher.backbone, step.terms, together, index)
        if self._labels_unseen or labels.device.type == "cpu":  # a GPU would be waited for: there once in a stage
            checks.check_labels_known(labels, self.num_classes)
            self._labels_unseen = False
        batch = self._batch(images, labels, index)
        device = batch.images.device.type
        networks = autocast_as_now(device)
        for term in step.terms.values():
            term.autocast = networks  # for branches of networks, which run as networks do
        theirs, ours = step.teacher_outputs(batch), step.student_outputs(batch)
        with torch.autocast(device, enabled=False):  # losses in fp32
            losses: Losses = step.losses(ours, theirs, batch)
            if self.training and torch.is_grad_enabled() and losses.remembered:
                step.update(losses, batch)
        logits = ours["logits"][:, 0] if ours else None
        return Distillation(losses.total, losses.terms, losses.watched, logits)

    def save_shared(self, path: str | Path) -> None:
        """Save what depends on the teacher alone, such as SSKD's head, for the next student of this teacher."""
        tensors = {key: value.detach().cpu().contiguous() for key, value in self.shared_modules.state_dict().items()}
        make_folder(Path(path).parent)
        described = {"method": self.method, "modules": json.dumps(str(self.shared_modules))}
        write_atomic(Path(path), tensor_file(tensors, described))

    def load_shared(self, path: str | Path) -> None:
        """Take what `save_shared` saved; the stages that train it are left out of `stages`.

        Raises:
            UserError: no such file, a damaged one, or one of another method or another teacher's widths.
        """
        try:
            described, tensors = read_tensor_file(Path(path))
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read ({error}). Give a file that save_shared has written.") from error
        if described.get("modules") != json.dumps(str(self.shared_modules)):
            raise UserError(
                f"{path} is of the method {described.get('method')} or of a teacher of another width; here the method "
                f"is {self.method} with {self.shared_modules}. Give the file of this teacher and method."
            )
        self.shared_modules.load_state_dict(tensors)
        self.stages = tuple(stage for stage in self.plan.stages if not stage.shared)
        self.set_stage(self.stages[0].name)

    def save_student(
        self,
        folder: str | Path,
        class_names: tuple[str, ...] | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        architecture: str | None = None,
    ) -> None:
        """Write the student as a folder that timm and `sskd evaluate` load: model.safetensors and config.json.

        Of a network that is none of timm's, `architecture` says what makes it again: package.module:factory.

        Raises:
            UserError: nobody says how images are normalised, or other than `num_classes` names are given.
        """
        network, names = self.student_network, class_names or self.student_network.class_names
        if len(names) != self.num_classes:
            raise UserError(f"There are {self.num_classes} classes; got {len(names)} class names.")
        if not self.normalises and mean is None:
            raise UserError(
                "The folder is to say how images are normalised: give the mean and std per channel, for pixels in "
                "[0, 1], that your loop normalised with."
            )
        stated = network.normalisation if mean is None else checks.normalisation_of(mean, std, self.image_shape[0])
        written = Network(architecture or network.architecture, network.backbone, stated, names)
        save_network(written, network.backbone.state_dict(), Path(folder), self.image_shape)

    def get_extra_state(self) -> dict[str, Any]:
        """What is kept beside tensors: the stage, the epoch, and where the draws of views are."""
        return {"stage": self.stage.name, "epoch": self.epoch, "generator": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on in the stage in which the state was saved."""
        self.set_stage(state["stage"])
        self.epoch = state["epoch"]
        self.generator.set_state(state["generator"])

    def _named(self) -> dict[str, nn.Module]:
        """By the names in `Stage.trains`."""
        teacher = {"teacher": self.teacher_network} if self.teacher_network else {}
        terms: Any = self.terms[f"in_{self.stage.name}"]
        return {"student": self.student_network, **teacher, **dict(self.shared_modules.items()), **dict(terms.items())}

    def _world(self) -> World:
        if not (dist.is_available() and dist.is_initialized()):
            return World()
        return World(Share(dist.get_rank(), dist.get_world_size()), self.relations)  # type: ignore[arg-type]

    def _batch(self, images: Tensor, labels: Tensor, index: Tensor | None) -> Batch:
        views, step = self.plan.views, self.__dict__["_step"]
        crops = images if images.ndim == 5 else images[:, None].expand(-1, views.views, -1, -1, -1)
        made, asked = views.transform(crops, self.generator)
        numbers = torch.full_like(labels, -1) if index is None else index
        drawn = {name: term.draw(self.generator, numbers.cpu()) for name, term in step.terms.items()}
        epoch = torch.tensor(float(self.epoch), device=images.device)
        return Batch(made, labels, numbers.to(images.device), asked, epoch, all_sent(drawn, images.device))


def _without_teacher(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}teacher_network.")]:
        del state[key]


def _teacher_is_not_missed(_: nn.Module, incompatible: Any) -> None:
    missing = incompatible.missing_keys
    missing[:] = [key for key in missing if "teacher_network." not in key]
