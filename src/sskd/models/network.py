"""A backbone that takes images in [0, 1], of the data's size and channels, and makes of them what it was trained on."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sskd.errors import UserError
from sskd.models.build import Built, build
from sskd.models.find import find_taps, stages_by_name
from sskd.models.image_misfit import ERRORS, advice
from sskd.models.normalisation import LUMA, Normalisation
from sskd.models.outputs import described, logits_of
from sskd.models.resnet import CifarNet
from sskd.models.taps import Shapes, Tap, usable
from sskd.models.zoo import resolve


class Network(nn.Module):
    """An image classifier that resizes, converts and normalises for itself.

    Its state is the backbone's alone, so that timm can load it. `size`: the side, in pixels, of the images that the
    backbone is to see, None for the images as they come. `order`: for each class asked for, which of the backbone's.
    """

    mean: Tensor
    std: Tensor
    luma: Tensor
    order: Tensor | None

    def __init__(
        self,
        architecture: str,
        backbone: nn.Module,
        normalisation: Normalisation,
        class_names: tuple[str, ...],
        size: int | None = None,
        taps: Mapping[str, Tap] | None = None,
        order: Sequence[int] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.title = architecture
        self.class_names = class_names
        self.normalisation = normalisation
        self.size = size
        self.crop_pct = 1.0  # the part of an image's shorter side that is seen in evaluation; 7/8 of photographs
        self.arguments = dict(arguments or {})  # with which timm makes the backbone again
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("order", None if order is None else torch.tensor(order), persistent=False)
        found = find_taps(self.backbone)
        self._named = _as_found(taps or {}, found)  # by the user, and so not to be left out in silence
        stages = any(name.startswith("stage") for name in (*found, *self._named))
        self._guessed = {} if stages else stages_by_name(self.backbone)
        known = {**self._guessed, **found, **self._named}
        self.taps = {name: replace(tap, module=f"backbone.{tap.module}") for name, tap in known.items()}
        self.left_out: dict[str, str] = {}
        self.notes: tuple[str, ...] = ()  # what is worth saying of where its weights come from
        self.tap_notes: tuple[str, ...] = ()  # what `shapes` found of the taps that the user should know

    @property
    def channels(self) -> int:
        """Channels of the images that the backbone takes."""
        return self.mean.shape[1]

    @property
    def fixed_size(self) -> bool:
        """Whether the backbone takes images of one size alone, as those with position embeddings do."""
        record: Any = getattr(self.backbone, "pretrained_cfg", {})
        return bool(record.get("fixed_input_size")) or hasattr(self.backbone, "image_size")

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Logits of images in [0, 1]."""
        logits: Tensor = logits_of(self.backbone(self.prepared(images)))
        selects = self.order is not None and isinstance(logits, Tensor)  # anything else is refused by `shapes`
        return logits[:, self.order] if selects else logits

    def prepared(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N c h w"]:
        """Images in [0, 1] as the backbone takes them: its channels, its size, normalised."""
        if images.shape[1] != self.channels:
            grey = self.channels == 1
            images = (images * self.luma).sum(1, keepdim=True) if grey else images.expand(-1, self.channels, -1, -1)
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            size = (self.size, self.size)
            images = interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        return (images - self.mean) / self.std

    def shapes(self, image_shape: tuple[int, int, int]) -> Shapes:
        """The shape at every tap for images of this shape. Found taps that cannot be read move to `left_out`.

        Raises:
            UserError: the network cannot take such images, or a tap that the user named cannot be read.
        """
        channels = image_shape[0]
        if channels != self.channels and (channels, self.channels) not in ((1, self.channels), (3, 1)):
            raise UserError(
                f"{self.title} takes images of {self.channels} channels; the data has {channels}. "
                "Grey images can be repeated and colour made grey, but no other channels converted."
            )
        if (dtype := next(self.parameters()).dtype) in (torch.float16, torch.bfloat16):
            kind = str(dtype).removeprefix("torch.")
            raise UserError(
                f"{self.title} has weights in {kind}. Give it in float32 (module.float()); "
                "--precision bf16 then runs it in bf16."
            )
        image, before = self._noise(1, image_shape), self.taps
        try:
            shapes, self.left_out, self.taps = usable(self, before, image)
        except ERRORS as error:
            raise self._misfit("cannot take", image, error) from error
        if refused := [reason for name, reason in self.left_out.items() if name in self._named]:
            raise UserError(refused[0].replace("backbone.", ""))  # as the user knows the modules
        if shapes["logits"] != (len(self.class_names),):
            raise UserError(
                f"{self.title} gives {shapes['logits'][0]} logits for {len(self.class_names)} classes. Build it with a "
                "classifier of as many outputs (a factory is called with num_classes, if it takes that)."
            )
        if "pooled" not in before:
            self.left_out["pooled"] = f"{self.title} ends in no linear layer whose input could be read."
        return self._checked(before, shapes)

    def _checked(self, before: Mapping[str, Tap], shapes: Shapes) -> Shapes:
        """The shapes, without guessed stages that are none; what was seen of the taps becomes notes."""
        vectors = [name for name in self._guessed if len(shapes.get(name, (0, 0))) < 2]
        for name in vectors:
            self.left_out[name] = f"{self.taps.pop(name).module} of {self.title} gives vectors, so it is no stage."
        shapes = {name: shape for name, shape in shapes.items() if name not in vectors}
        stages = [name for name in self._guessed if name in shapes and not name.endswith(".pre")]
        turned = [name for name, tap in self.taps.items() if tap.channels_last and not before[name].channels_last]
        notes = []
        if stages:
            named = ", ".join(f"{name} is {self._guessed[name].module}" for name in stages)
            notes.append(
                f"The stages of {self.title} are taken by the names of its modules: {named}. Where that is wrong, name "
                "them: --student_taps or --teacher_taps."
            )
        if turned:
            notes.append(
                f"In {self.title} the maps of {', '.join(turned)} have their channels last, as their shapes show: they "
                "are read channels first."
            )
        self.tap_notes = tuple(notes)
        return shapes

    def check_training(self, image_shape: tuple[int, int, int]) -> None:
        """Run a copy on two images in training mode, where networks may compute something else.

        Neither the network nor torch's generators are touched.

        Raises:
            UserError: it fails, or gives no logits.
        """
        images, copied = self._noise(2, image_shape), copy.deepcopy(self).train()
        try:
            with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []), torch.no_grad():
                logits: Any = copied(images)
        except ERRORS as error:
            raise self._misfit("cannot be trained on", images, error) from error
        if not isinstance(logits, Tensor) or logits.shape != (2, len(self.class_names)):
            raise UserError(
                f"{self.title} returns logits in eval mode, but in training mode {described(logits)}. It must return "
                f"logits [N, {len(self.class_names)}] in training too, by itself or as .logits or ['logits'] of what "
                "it returns."
            )

    def _noise(self, count: int, image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        weight = next(self.parameters())
        noise = torch.rand(count, *image_shape, generator=torch.Generator().manual_seed(0))
        return noise.to(weight.device, weight.dtype)

    def _misfit(self, cannot: str, images: Float[Tensor, "N C H W"], error: Exception) -> UserError:
        size = "x".join(str(n) for n in images.shape[1:])
        return UserError(
            f"{self.title} {cannot} images of {size} (channels x height x width): {str(error).rstrip('.')}. "
            f"{advice(self.backbone, self.prepared(images), error)}"
        )

    def tail(self, tap: str, outputs: int) -> nn.Module:
        """What follows a stage, copied and freshly initialised, with a classifier of so many outputs.

        Raises:
            UserError: the network is none of the zoo's, or the tap no stage.
        """
        make: Any = getattr(self.backbone, "tail", None)
        if make is None:
            raise UserError(
                f"The method copies what follows a stage of {self.title}, which is known of the zoo's networks alone "
                "(`sskd list models`). Choose one of them, give your network a method tail(tap, outputs), or use "
                "another method."
            )
        made: nn.Module = make(self._module_of(tap) if isinstance(self.backbone, CifarNet) else tap, outputs)
        return made

    def _module_of(self, tap: str) -> str:
        """What the zoo's `tail` is asked for: of a tap that the user named, its module."""
        if (named := self._named.get(tap)) is None:
            return tap
        if named.at == "in":
            raise UserError(
                f"What follows {tap} of {self.title} cannot be copied: it is the input of {named.module}. Name a "
                "stage's module without :in, or use another method."
            )
        return named.module

    @property
    def branch_taps(self) -> tuple[str, ...]:
        """Where auxiliary classifiers branch off a network of the zoo; of others nothing is known."""
        return self.backbone.branch_taps if isinstance(self.backbone, CifarNet) else ()

    @property
    def after_stages(self) -> tuple[str, ...]:
        """The modules of a network of the zoo that come after its last stage, but for the classifier."""
        known = self.backbone.after_stages if isinstance(self.backbone, CifarNet) else ()
        return tuple(f"backbone.{name}" for name in known)

    def fitted(self, class_names: tuple[str, ...], order: Sequence[int] | None, taps: Mapping[str, Tap]) -> "Network":
        """The same backbone for these classes: `order` says which of this network's outputs are theirs."""
        if self.order is not None:  # of the backbone's outputs
            order = self.order.tolist() if order is None else [int(self.order[i]) for i in order]
        network = Network(
            self.architecture, self.backbone, self.normalisation, class_names, self.size, taps, order, self.arguments
        )
        network.crop_pct, network.notes = self.crop_pct, self.notes
        return network

    def replace_classifier(self, classes: int) -> None:
        """Put a fresh linear classifier of so many classes in the place of the old one.

        Raises:
            UserError: there is no linear classifier.
        """
        reset: Any = getattr(self.backbone, "reset_classifier", None)
        if reset is not None:  # timm's and the zoo's way
            reset(classes)
            return
        tap = find_taps(self.backbone).get("pooled")
        old = self.backbone.get_submodule(tap.module) if tap else None
        if tap is None or not isinstance(old, nn.Linear):
            raise UserError(
                f"{self.title} has no linear classifier that could be replaced by one for {classes} classes. "
                "Give a network that ends in a linear layer, or build it with so many classes yourself."
            )
        self.backbone.set_submodule(tap.module, nn.Linear(old.in_features, classes, old.bias is not None))

    def weights_hash(self) -> str:
        """SHA-256 over all parameters and buffers of the backbone and over its normalisation."""
        digest = hashlib.sha256(repr((self.normalisation.mean, self.normalisation.std)).encode())
        for key, value in sorted(self.backbone.state_dict().items()):
            digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def _as_found(named: Mapping[str, Tap], found: Mapping[str, Tap]) -> dict[str, Tap]:
    """Taps that the user names, with what is known of the same place: how its maps lie, whether it is used again."""
    known = {(tap.module, tap.at): tap for tap in found.values()}
    taps = dict[str, Tap]()
    for name, tap in named.items():
        same = known.get((tap.module, tap.at), tap)
        last = same.channels_last if tap.channels_last is None else tap.channels_last
        taps[name] = replace(tap, channels_last=last, again=tap.again or same.again)
    return taps


def create_network(
    name: str,
    class_names: tuple[str, ...],
    image_shape: tuple[int, int, int],
    normalisation: Normalisation,
    taps: Mapping[str, Tap] | None = None,
) -> Network:
    """A freshly initialised network of any kind that `build` knows, drawn from torch's default generator.

    Raises:
        UserError: an unknown name, with the nearest known ones; one that cannot be built.
    """
    built = build(name, len(class_names), image_shape[0], image_shape[-1])
    return assembled(resolve(name), built, class_names, normalisation, taps)


def assembled(
    architecture: str,
    built: Built,
    class_names: tuple[str, ...],
    normalisation: Normalisation,
    taps: Mapping[str, Tap] | None = None,
) -> Network:
    """A network of a backbone; the normalisation is the backbone's own, if it states one, else the given one."""
    own = built.normalisation or normalisation.of(built.channels)
    return Network(architecture, built.backbone, own, class_names, built.size, taps, None, built.arguments)
