"""`sskd inspect`: what a run has transferred, and where its networks are right, wrong and sure."""

from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from sskd.analyses.calibration import calibration, per_class
from sskd.analyses.embedding import embedding
from sskd.analyses.features import batches
from sskd.analyses.files import keep, made_by
from sskd.analyses.finished import Finished, Split, load_finished
from sskd.analyses.transferred import Mistake, look
from sskd.data.images import Images
from sskd.errors import UserError
from sskd.models.network import Network
from sskd.models.taps import Tapped
from sskd.train.step import Execution, place, run_network

Thumbnails = dict[str, UInt8[Tensor, "C H W"]]


def inspect(
    run: str,
    data: str | None = None,
    teacher: str | None = None,
    split: Split = "test",
    images: int = 2048,
    noisy: int = 12,
    points: int = 400,
    seed: int = 0,
    device: str = "auto",
    trust_code: bool = False,
) -> dict[str, Any]:
    """Look at what a finished run was taught and what became of it; written to RUN/analyses/inspect.json.

    Args:
        run: the run directory; the word --run may be left out.
        data: where the run's data lies now, if not where the run had it.
        teacher: where the run's teacher lies now; of a run without one, a network to look at beside the student.
        split: test, validation or train.
        images: how many to look at, drawn at random.
        noisy: of the self-supervised predictions that are wrong, how many of the most nearly right and how many of the
            most wrong are shown.
        points: images of at most ten classes that are placed in the plane by t-SNE; 0 for none.
        seed: of the images drawn.
        device: auto, cpu, cuda or cuda:N.
        trust_code: run code that the run's files name (networks, method, pretext as module:name); a run that names any
            is refused otherwise.

    Returns:
        What inspect.json holds.

    Raises:
        UserError: no finished run, or something that it was made of has moved.
    """
    if noisy < 0 or points < 0:
        raise UserError(f"noisy and points are numbers of images, not below 0; got {noisy} and {points}.")
    finished = load_finished(run, data, teacher, device, trust_code)
    drawn = finished.images(split, images, seed)
    looked_at = drawn.images
    names = finished.parts.source.class_names
    networks = finished.networks
    seen = look(finished, drawn, noisy)
    shown, thumbnails = _shown(seen.mistakes, looked_at, names)
    found: dict[str, Any] = {
        "kind": "inspect",
        **finished.about(run, split, len(looked_at), seed),
        "error_levels": seen.error_levels(),
        "kept": seen.kept(),
        "kept_by_epoch": kept_by_epoch(finished),
        "noisy": shown,
    }
    pooled: dict[str, Tensor] = {}
    for side, network in networks.items():
        execution = finished.execution(side)
        logits, features = _read(network, looked_at, execution)
        prefix = "" if side == "student" else f"{side}_"
        found[f"{prefix}top1"] = float((logits.argmax(1) == looked_at.labels).double().mean())
        found[f"{prefix}precision"] = execution.precision
        found[f"{prefix}per_class"] = per_class(logits.argmax(1), looked_at.labels, names)
        found[f"{prefix}calibration"] = calibration(logits.double().softmax(1), looked_at.labels)
        if features is not None:
            pooled[side] = features
    found["embedding"] = embedding(pooled, looked_at.labels, names, points, seed) if points else None
    found |= {"notes": [*finished.notes, *seen.notes], **made_by()}
    keep(finished.run.path, "inspect", found, thumbnails)
    return found


def kept_by_epoch(finished: Finished) -> list[dict[str, float]]:
    """From the run's log: the shares of rows that were transferred, and the head's accuracy, epoch by epoch."""
    last = finished.plan.stages[-1].name
    found = []
    for record in finished.run.records():
        train = record.get("train", {})
        kept = {name: train[name] for name in ("ss_kept", "tf_kept", "ss_accuracy") if name in train}
        if record["stage"] == last and kept:
            found.append({"epoch": record["epoch"], **kept})
    return found


def _read(network: Network, images: Images, execution: Execution) -> tuple[Tensor, Tensor | None]:
    """Logits and, where the network has one, its classifier's input, on the CPU; in the execution's precision."""
    place({"network": network}, execution)
    watched = Tapped(network, network.taps, ("pooled",) if "pooled" in network.taps else ())
    with torch.no_grad():
        given = (pixels for pixels, _ in batches(images, 256, torch.device(execution.device)))
        values = [run_network(watched, pixels, execution) for pixels in given]
    watched.close()
    seen = {name: torch.cat([one[name].cpu() for one in values]) for name in values[0]}
    return seen["logits"], seen.get("pooled")


def _shown(mistakes: list[Mistake], images: Images, names: tuple[str, ...]) -> tuple[list[dict[str, Any]], Thumbnails]:
    """The mistakes as plain values, and their pictures."""
    thumbnails, found = Thumbnails(), list[dict[str, Any]]()
    for one in mistakes:
        view, own, other = (f"inspect/{name}.jpg" for name in (f"{one.image}-{one.view}", one.image, one.taken_for))
        thumbnails |= {view: one.seen, own: images.pixels[one.image], other: images.pixels[one.taken_for]}
        classes = {key: names[int(images.labels[i])] for key, i in (("image", one.image), ("taken_for", one.taken_for))}
        found.append(
            {
                "image": view,
                "image_class": classes["image"],
                "own": own,
                "taken_for": other,
                "taken_for_class": classes["taken_for"],
                "view": one.view,
                "rank": one.rank,
                "kept": one.kept,
                "similarity": one.similarity,
                "own_similarity": one.own_similarity,
            }
        )
    return found, thumbnails
