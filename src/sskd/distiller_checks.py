"""What a `Distiller` is given: wrapped, or refused before it computes anything."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sskd.errors import UserError
from sskd.methods.plan import Term, compares_images
from sskd.models.network import Network
from sskd.models.normalisation import Normalisation
from sskd.models.taps import parse_taps
from sskd.validation import convert
from sskd.views.pretext import Views
from sskd.views.transformations import COLOURS


def check_images(method: str, images: Tensor, labels: Tensor, views: int, image_shape: tuple[int, int, int]) -> None:
    """Refuse images of another shape or type.

    Raises:
        UserError: names the shapes.
    """
    one, several = images.ndim == 4, images.ndim == 5 and images.shape[1] == views
    if not (one or several) or tuple(images.shape[-3:]) != image_shape or len(labels) != len(images):
        raise UserError(
            f"{method} takes images [B, {', '.join(map(str, image_shape))}], or {views} crops of each "
            f"[B, {views}, ...], with a label for each image; got {list(images.shape)} and {len(labels)} labels."
        )
    if labels.ndim != 1 or labels.is_floating_point():
        raise UserError(
            f"Labels are class numbers [B], such as torch.int64; got {list(labels.shape)} of {labels.dtype}. Mixed or "
            "one-hot labels are not taken."
        )
    if not images.is_floating_point():
        raise UserError(f"Images are floats, not {images.dtype}: divide bytes by 255.")


def check_networks(student: object, teacher: object, num_classes: int, epochs: int) -> None:
    """Refuse what are no networks, and numbers that mean nothing.

    Raises:
        UserError: names the argument.
    """
    for side, network in (("student", student), ("teacher", teacher)):
        if not isinstance(network, nn.Module) and not (side == "teacher" and network is None):
            raise UserError(
                f"The {side} is a torch.nn.Module, such as timm.create_model gives; got {network!r:.60}. For names and "
                "places of networks there is sskd.distill."
            )
    for name, value, low in (("num_classes", num_classes, 2), ("epochs", epochs, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise UserError(f"{name} is a whole number, {low} or more; got {value!r}.")


def wrapped(
    module: nn.Module, side: str, stated: Normalisation, num_classes: int, taps: Mapping[str, str] | None
) -> Network:
    """A user's module as a network that normalises for itself and whose inner values are read by name.

    Raises:
        UserError: taps that are no names with texts.
    """
    given = convert(dict(taps) if isinstance(taps, Mapping) else taps or {}, dict[str, str], f"{side}_taps")
    names = tuple(str(i) for i in range(num_classes))
    return Network(title_of(module), module, stated, names, taps=parse_taps(given))


def check_labels_known(labels: Tensor, num_classes: int) -> None:
    """Refuse labels outside of the classes. Waits for the device.

    Raises:
        UserError: names the smallest and the largest.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise UserError(f"Labels are from 0 to {num_classes - 1}, by num_classes; got labels from {low} to {high}.")


def check_ready(
    method: str, teacher: nn.Module | None, terms: Mapping[str, Term], size: int, index: Tensor | None
) -> None:
    """Refuse a teacher in train mode, one image where images are compared, and no numbers where a term needs them.

    Raises:
        UserError: says what to call.
    """
    if teacher is not None and teacher.training:
        raise UserError(
            "The teacher is in train mode: its predictions would depend on the batch, and its statistics move. Call "
            "train() on the Distiller, not on the teacher, or teacher.eval()."
        )
    if size < 2 and (comparing := [name for name, term in terms.items() if compares_images(term)]):
        raise UserError(
            f"{method} compares the images of a batch with each other (its term {comparing[0]}); a batch of one image "
            "has nothing to compare. Give two or more, or gather_distributed=True and several processes."
        )
    if index is None and (needing := [name for name, term in terms.items() if term.needs_index]):
        raise UserError(
            f"{method} (its term {needing[0]}) remembers each training image by its number. Call the Distiller with "
            "index, the images' positions in the labels that it was built with."
        )


def check_views(views: Views, normalises: bool) -> None:
    """Refuse changes of colour to images that are normalised already.

    Raises:
        UserError: names them.
    """
    made: Any = getattr(views, "transformations", None)
    colours = [name for name in getattr(made, "names", ()) if name in COLOURS]
    if colours and not normalises:
        raise UserError(
            f"{', '.join(colours)} change colours, of images in [0, 1]. Give mean and std, and images in [0, 1]; the "
            "Distiller normalises them after the views are made."
        )


def normalisation_of(mean: tuple[float, ...] | None, std: tuple[float, ...] | None, channels: int) -> Normalisation:
    """The normalisation in the arguments; none at all where neither is given.

    Raises:
        UserError: half of it, or other than one number for each channel.
    """
    if (mean is None) != (std is None):
        raise UserError("A normalisation needs both a mean and a std for each channel; only one of them was given.")
    if mean is None or std is None:
        return Normalisation((0.0,) * channels, (1.0,) * channels, "your own loop")
    if len(mean) != channels:
        raise UserError(f"mean and std need {channels} numbers, one for each channel; got {len(mean)}.")
    return Normalisation(tuple(mean), tuple(std), "the arguments")


def title_of(module: nn.Module) -> str:
    """timm's name of an architecture, or the class's."""
    record: Any = getattr(module, "pretrained_cfg", None) or {}
    return str(record.get("architecture") or f"module:{type(module).__name__}")
