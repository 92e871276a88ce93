"""`sskd similarity`: how much a student is like its teacher, in predictions, features and relations of images."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sskd.analyses.answers import outputs, viewed
from sskd.analyses.cka import SMALLEST, MinibatchCKA
from sskd.analyses.features import batches, tapped
from sskd.analyses.files import keep, made_by
from sskd.analyses.finished import Finished, Looked, Split, load_finished
from sskd.data.images import Images
from sskd.errors import UserError
from sskd.methods.logits import row_kl
from sskd.methods.stages import stages_of
from sskd.models.network import Network
from sskd.views.contrastive import Contrastive

MINIBATCH, PHOTOGRAPHS = 256, 64  # images in a minibatch of CKA, and of images larger than LARGE
LARGE = 64  # pixels


def similarity(
    run: str,
    data: str | None = None,
    teacher: str | None = None,
    split: Split = "test",
    images: int = 2048,
    temperature: float = 1.0,
    ss_images: int = 8,
    seed: int = 0,
    device: str = "auto",
    trust_code: bool = False,
) -> dict[str, Any]:
    """Compare a finished run's student with its teacher; written to RUN/analyses/similarity.json.

    Args:
        run: the run directory; the word --run may be left out.
        data: where the run's data lies now, if not where the run had it.
        teacher: where the run's teacher lies now; of a run without one, the network to compare with.
        split: test, validation or train.
        images: how many to look at, drawn at random.
        temperature: of the predictions whose divergence is taken.
        ss_images: of these, how many are shown in the self-supervised similarity matrices.
        seed: of the images drawn.
        device: auto, cpu, cuda or cuda:N.
        trust_code: run code that the run's files name (networks, method, pretext as module:name); a run that names any
            is refused otherwise.

    Returns:
        What similarity.json holds.

    Raises:
        UserError: no finished run, no teacher, or something that it was made of has moved.
    """
    if images < SMALLEST:
        raise UserError(f"images must be at least {SMALLEST} to compare features; got {images}.")
    if temperature <= 0 or ss_images < 2:
        raise UserError(f"temperature must be above 0 and ss_images at least 2; got {temperature} and {ss_images}.")
    finished = load_finished(run, data, teacher, device, trust_code)
    looked_at, _ = finished.images(split, images, seed)
    found = {
        "kind": "similarity",
        **finished.about(run, split, len(looked_at), seed),
        **_compared(finished, looked_at, temperature),
    }
    shown = Images(looked_at.pixels[:ss_images], looked_at.labels[:ss_images])
    found["ss"], thumbnails = _matrices(finished, shown)
    found |= {"notes": list(finished.notes), **made_by()}
    keep(finished.run.path, "similarity", found, thumbnails)
    return found


def layers(network: Network) -> tuple[str, ...]:
    """The taps that are compared: stem, stages, the classifier's input, the logits."""
    shapes = dict.fromkeys(network.taps, ())
    return tuple(
        name for name in ("stem", *stages_of(shapes), "pooled", "logits") if name in network.taps or name == "logits"
    )


def _compared(finished: Finished, images: Images, temperature: float) -> dict[str, Any]:
    """Predictions and features of both networks on the same images."""
    student, teacher = finished.parts.student, finished.teacher
    ours, theirs = layers(student), layers(teacher)
    size = min(MINIBATCH if images.pixels.shape[-1] <= LARGE else PHOTOGRAPHS, len(images))
    cka, distances = MinibatchCKA(ours, theirs), Distances(tuple(name for name in ours if name in theirs))
    kl, alike = list[Tensor](), list[Tensor]()
    with tapped(student, *ours) as read_student, tapped(teacher, *theirs) as read_teacher:
        for pixels, _ in batches(images, size, finished.device):
            one, other = read_student(pixels), read_teacher(pixels)
            kl.append(row_kl(other["logits"], one["logits"], temperature) / temperature**2)
            alike.append(one["logits"].argmax(1) == other["logits"].argmax(1))
            distances.update(one, other)
            if len(pixels) == size:  # the ragged rest would weigh as much as a whole batch
                cka.update(one, other)
    return {
        "predictions": {
            "kl": float(torch.cat(kl).double().mean()),
            "kl_temperature": temperature,
            "agreement": float(torch.cat(alike).double().mean()),
        },
        "stages": {"student": list(ours), "teacher": list(theirs)},
        "cka": cka.read(),
        "cka_minibatch": size,
        **distances.read(),
    }


class Distances:
    """Euclidean distances of two networks' values for the same images, and in units of the teacher's length."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._found: dict[str, list[Float[Tensor, "n 2"]]] = {name: [] for name in names}

    def update(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> None:
        """Add a batch."""
        for name, kept in self._found.items():
            one, other = student[name], teacher[name]
            if one.shape == other.shape:
                distance, length = ((value.flatten(1).float().norm(dim=1)) for value in (one - other, other))
                kept.append(torch.stack([distance, distance / length], 1).double())

    def read(self) -> dict[str, dict[str, float | None]]:
        """Means over the images; None where the shapes differ."""
        means = {name: torch.cat(kept).mean(0).tolist() if kept else (None, None) for name, kept in self._found.items()}
        return {
            "l2": {name: pair[0] for name, pair in means.items()},
            "l2_relative": {name: pair[1] for name, pair in means.items()},
        }


def _matrices(finished: Finished, images: Images) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Cosines of the heads' outputs: a row for each transformed view, image by image, a column for each plain image."""
    heads = finished.heads
    if heads is None or not isinstance(heads.pretext, Contrastive):
        return None, {}
    batch = next(viewed(finished, Looked(images, None), len(images)))
    sides = {"student": (heads.network, heads.term.head), "teacher": (finished.teacher, heads.teacher)}
    logits = {
        side: heads.term.answers(head, outputs(network, batch, "pooled"), batch)
        for side, (network, head) in sides.items()
    }
    views, names = heads.pretext.views, finished.parts.source.class_names
    thumbnails = {f"similarity/{i}.jpg": pixels for i, pixels in enumerate(images.pixels)}
    found = {
        **{side: [[round(value, 4) for value in row] for row in matrix.tolist()] for side, matrix in logits.items()},
        "rows": [{"image": i, "view": view} for i in range(len(images)) for view in range(1, views)],
        "classes": [names[label] for label in images.labels.tolist()],
        "thumbnails": list(thumbnails),
        "student_epoch": finished.result["last"]["epoch"],
    }
    return found, thumbnails
