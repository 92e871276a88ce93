"""Networks that are brought along and not trained: checked against the data, measured, kept as a teacher's run."""

from collections.abc import Sequence

import torch
from torch import nn

from sskd.data.crops import Crops, Padded, Resized
from sskd.data.decoded import default_workers
from sskd.data.images import Images
from sskd.data.pictures import Pictures
from sskd.data.prepare import PHOTOGRAPH, fits, image_shape, make_feed
from sskd.data.source import ImageSet, Source
from sskd.environment import environment, processor
from sskd.errors import UserError
from sskd.files import alone_in
from sskd.jobs.assemble import READ_BACK
from sskd.jobs.job import Job, usual_arguments
from sskd.jobs.machine import as_measured, run_path
from sskd.jobs.teachers import brought_network, describe, fit_classes, measure, pick_device
from sskd.models.checkpoints import save_network
from sskd.models.folders import is_importable
from sskd.models.load import Brought
from sskd.models.network import Network
from sskd.models.soundness import warn_of_probabilities
from sskd.progress import Display
from sskd.runs import Run
from sskd.train.distributed import launched
from sskd.train.protocols import Record
from sskd.train.step import Execution

Shape = tuple[int, int, int]


def evaluated(brought: Brought, source: Source, size: int | None, device: str, trust_code: bool) -> Record:
    """What `check` measures, in the precision in which the network's run measured it; where the two differ, a note.

    Raises:
        UserError: as `check`.
    """
    execution = as_measured(brought.place, pick_device(device))
    record = check(brought, source, size, execution, trust_code=trust_code)[2]
    return {**record, "notes": [*record["notes"], *_unlike_its_run(brought.place, record, execution, size)]}


def _unlike_its_run(place: str, record: Record, execution: Execution, size: int | None) -> list[str]:
    """Why the run at `place` has another accuracy on the same images, where it has."""
    run = Run(run_path(place))
    if not (run.path / "result.json").is_file():
        return []
    config, result = run.config() or {}, run.result() or {}
    data, then = config.get("data") or {}, config.get("execution") or {}
    measured = ((result.get("best") or result.get("last") or {}).get("test") or {}).get("top1")
    same = (data.get("name"), data.get("test_images")) == (record["data"], record["images"])
    if not same or measured is None or abs(measured - record["top1"]) < 1e-6:
        return []
    sizes = "" if size is None else f" on images of {size} pixels"
    before = f"{then.get('precision')} on {then.get('device')}, {config.get('environment', {}).get('processor')}"
    return [
        f"The run itself measured {measured:.2%} ({before}); here it is {execution.precision} on {execution.device}, "
        f"{processor()}{sizes}. Other kernels and batches round otherwise."
    ]


def check(
    brought: Brought,
    source: Source,
    size: int | None,
    execution: Execution,
    module: nn.Module | None = None,
    trust_code: bool = False,
) -> tuple[Network, Shape, Record]:
    """The network, with its own classes; the shape of the images that it was given; its accuracy on the test images,
    with all that the accuracy depends on.

    `size`: the side of the images before the network resizes them; the images' own, or the network's for photographs.
    `module`: a network that was handed over, instead of what is at the place.

    Raises:
        UserError: it cannot be loaded, runs code that is not trusted, does not know the data's classes, or cannot take
            the images.
    """
    where, test = torch.device(execution.device), source.test
    side = size or (test.pixels.shape[-1] if isinstance(test, Images) else PHOTOGRAPH)
    own = brought_network(brought, source, (test.channels, side, side), module, trust_code)
    network, notes = fit_classes(own, brought.place, source)
    (test,), crops = as_evaluated([test], network, size)
    shape = image_shape(test, crops)
    network.shapes(shape)
    notes = (*own.notes, *notes, *warn_of_probabilities(own, brought.place, shape))
    accuracy = measure(network, make_feed(test, crops, where, default_workers()), execution)
    facts = {key: value for key, value in describe(own).items() if key != "order"}
    record = {
        "network": facts.pop("architecture"),
        "data": source.name,
        "images": len(test),
        **accuracy,
        "precision": execution.precision,
        "parameters": sum(p.numel() for p in own.parameters()),
        **facts,
        "class_names": list(own.class_names),
        "notes": list(notes),
    }
    return own, shape, record


def as_evaluated(sets: Sequence[ImageSet], network: Network, size: int | None) -> tuple[list[ImageSet], Crops]:
    """How a network is given images that it is measured on, of several sets alike: small ones as they are.

    `size`: see `check`.
    """
    crops: Crops = Padded(0, 0)
    if all(isinstance(images, Images) for images in sets) and size is None and network.crop_pct >= 1:
        return list(sets), crops
    crops = Resized(size or network.size or PHOTOGRAPH)
    stored, once = list[ImageSet](), fits(sets, crops)
    for images in sets:
        if isinstance(images, Images):
            images = images.reduced(crops.stored)
        elif isinstance(images, Pictures) and once:
            images = images.stored(crops.stored)
        stored.append(images)
    return stored, crops


def adopt(job: Job, source: Source, display: Display) -> Record:
    """Check the job's network and keep it, with its classes and normalisation, as a run that others distil from.

    Raises:
        UserError: as `check`; there are no weights; several processes; the directory holds a run of another config.
    """
    run = Run(job.out, display.note)
    if job.init is None:
        raise UserError(
            "epochs 0 checks and keeps weights that are there; say which: --init WEIGHTS, or a --model that brings its "
            "own (package.module:factory)."
        )
    if launched().size > 1:
        raise UserError("epochs 0 trains nothing, so there is nothing to share. Start it without torchrun.")
    if run.config() is not None:
        run.same(job.arguments(), "arguments", usual=usual_arguments())
        if (result := run.result()) is not None:
            display.note(f"{job.out} is finished already; nothing to do.")
            return result
    module, execution = job.modules.get("student"), Execution(pick_device(job.training.device))
    own, shape, record = check(job.init, source, job.training.size, execution, module, job.trust_code)
    coded = is_importable(own.architecture)
    for note in (*source.notes, *record["notes"], *([READ_BACK.format(own.architecture)] if coded else [])):
        display.note(note)
    with alone_in(job.out, display.note):
        run.start({"arguments": job.arguments(), "class_names": list(own.class_names), "environment": environment()})
        save_network(own, own.backbone.cpu().state_dict(), run.student, shape)
        measured = {"epoch": 0, "test": {key: record[key] for key in ("top1", "top5")}}
        result = {**record, "method": "none", "seed": job.training.seed, "seconds": 0.0, "last": measured, "best": None}
        run.finish(result)
    return result
