"""A finished run, put together again from what its directory says."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from sskd.data.crops import Padded, Resized
from sskd.data.images import Images
from sskd.data.source import ImageSet
from sskd.data.streams import Stream
from sskd.errors import UserError
from sskd.jobs.assemble import Prepared, planned, prepare
from sskd.jobs.job import Job, restored
from sskd.jobs.machine import as_measured
from sskd.jobs.teachers import pick_device
from sskd.methods.plan import Plan
from sskd.methods.sskd import Similarity
from sskd.models.checkpoints import load_state
from sskd.models.load import Brought
from sskd.models.network import Network
from sskd.ranges import need_bool
from sskd.run_files import START_ANEW, Config
from sskd.runs import Run
from sskd.seeds import generator_at
from sskd.train.protocols import Record
from sskd.train.step import Execution
from sskd.views.pretext import Pretext

Split = Literal["test", "validation", "train"]


@dataclass(frozen=True)
class Heads:
    """What answers the pretext's question on either side.

    `network` is the student of the last epoch, with which its head was trained; a run's student may be an earlier one.
    """

    term: Similarity
    teacher: nn.Module
    network: Network

    @property
    def pretext(self) -> Pretext:
        """The question."""
        return self.term.pretext

    @property
    def ratio(self) -> float:
        """How many of the wrong rows are transferred."""
        return self.term.ratio if self.pretext.selective else 1.0


class Looked(NamedTuple):
    """Images that an analysis looks at, and which of the student's training images they are, if they are any."""

    images: Images
    index: Int64[Tensor, "N"] | None  # type: ignore[assignment]


@dataclass(frozen=True)
class Finished:
    """A run and its parts, in eval mode on one device: `parts.student` as the run keeps it, `parts.teacher` if any."""

    run: Run
    config: Config
    result: Record
    job: Job
    parts: Prepared
    plan: Plan
    heads: Heads | None
    device: torch.device
    notes: tuple[str, ...] = ()

    @property
    def teacher(self) -> Network:
        """The teacher.

        Raises:
            UserError: the run had none, and none was named.
        """
        if self.parts.teacher is None:
            raise UserError(
                f"{self.run.path} was trained without a teacher ({self.job.method}). Say which network it is to be "
                "compared with: --teacher RUN."
            )
        return self.parts.teacher

    @property
    def networks(self) -> dict[str, Network]:
        """The student and, where there is one, the teacher."""
        return {"student": self.parts.student} | ({"teacher": self.parts.teacher} if self.parts.teacher else {})

    def execution(self, side: str) -> Execution:
        """How a side's own run measured it, on this device; in fp32 where it has none."""
        teacher = self.job.teacher.place if side == "teacher" and self.job.teacher else None
        return as_measured(teacher or str(self.run.path), str(self.device))

    def about(self, run: str, split: str, count: int, seed: int) -> dict[str, Any]:
        """What stands at the head of an analysis."""
        names = {side: network.architecture for side, network in self.networks.items()}
        return {
            "run": run,
            "data": self.parts.source.name,
            "split": split,
            "images": count,
            "seed": seed,
            "method": self.job.method,
            "teacher": None,
            **names,
        }

    def images(self, split: Split, count: int, seed: int) -> Looked:
        """`count` images of a split as networks are given them in evaluation; all, where there are fewer.

        In a random order that the seed alone decides, so that neighbours are of different classes.

        Raises:
            UserError: the run has no such split, or its images cannot be asked for by number.
        """
        splits = self.parts.splits
        there: dict[str, ImageSet] = {"train": splits.train, **splits.evaluation}
        if split not in there:
            raise UserError(f"{self.run.path} has no {split} images; it has {', '.join(there)}.")
        if count < 1:
            raise UserError(f"images is how many to look at, at least 1; got {count}.")
        images, crops = there[split], self.parts.crops
        if isinstance(images, Stream):
            raise UserError(f"The {split} images of {self.job.data} come as a stream and cannot be drawn from.")
        index = torch.randperm(len(images), generator=generator_at("analyses", seed))[:count]
        chosen = images.take(index)
        if isinstance(crops, Resized):
            chosen = chosen.reduced(crops.stored) if isinstance(chosen, Images) else chosen.stored(crops.stored)
        assert isinstance(chosen, Images)
        return Looked(Images(crops.whole(chosen.pixels), chosen.labels), index if split == "train" else None)


def load_finished(
    place: str,
    data: str | None = None,
    teacher: str | None = None,
    device: str = "auto",
    trust_code: bool = False,
) -> Finished:
    """Everything that a finished run was made of.

    `data` and `teacher` say where they lie now, if not where they were. A run without a teacher may be given one.

    Raises:
        UserError: no finished run is there, what it was made of cannot be found or is not the same any more, or its
            files name code, which is not trusted.
    """
    need_bool("trust_code", trust_code)
    run, where = Run(Path(place)), torch.device(pick_device(device))
    config, result = _read(run)
    job = restored(run.path, config["arguments"], trust_code)
    recorded = job.teacher
    if teacher:
        job = replace(job, teacher=replace(recorded, place=teacher) if recorded else Brought(teacher))
    job = replace(job, data=data or job.data, init=Brought(str(run.path)))
    if any(one and one.startswith("module:") for one in (job.network, job.teacher.place if job.teacher else None)):
        raise UserError(f"{place} was trained in Python on a module that was handed over, which no file describes.")
    with _found_again(place, job):
        parts = prepare(job)
        _same(config, parts, recorded is not None)
        plan = planned(job, parts, job.method)
    heads, notes = _heads(run, parts, plan)
    for module in (parts.student, parts.teacher, *((heads.term, heads.teacher, heads.network) if heads else ())):
        if module is not None:
            module.to(where).eval().requires_grad_(False)
    return Finished(run, config, result, job, parts, plan, heads, where, notes)


def _read(run: Run) -> tuple[Config, Record]:
    config = (run.config() or {}) if (run.path / "config.json").is_file() else {}
    if "arguments" not in config:
        raise UserError(f"{run.path} is no run directory. Give one that `sskd distill` or `sskd teacher` has written.")
    result = run.result()
    if result is None or not run.student.is_dir():
        raise UserError(f"The run {run.path} is not finished. Repeat its command to finish it first.")
    if missing := [name for name in ("data", "class_names") if name not in config and result.get("method") != "none"]:
        raise UserError(f"{run.path}/config.json has no {' and no '.join(missing)}. {START_ANEW}")
    if "data" not in config:
        raise UserError(
            f"{run.path} holds a network that was brought along and checked, not trained. `sskd probe` and "
            "`sskd evaluate` take it; look at a run that was distilled from it."
        )
    return config, result


@contextmanager
def _found_again(place: str, job: Job) -> Iterator[None]:
    """Say how to point to what has moved.

    Raises:
        UserError: what went wrong, and what the run was looking for.
    """
    try:
        yield
    except UserError as error:
        teacher = f" and the teacher {job.teacher.place}" if job.teacher else ""
        raise UserError(
            f"{error} ({place} looks for the data {job.data}{teacher}. If they lie elsewhere now, say so: "
            "--data PLACE, --teacher PLACE.)"
        ) from error


def _same(config: Config, parts: Prepared, had_teacher: bool) -> None:
    """Refuse other data and another teacher than the run's.

    Raises:
        UserError: they are not those of the run.
    """
    if tuple(config.get("class_names", ())) != parts.source.class_names:
        raise UserError(f"The classes of {parts.source.name} are not those that the run was trained on.")
    train = parts.splits.train
    if isinstance(train, Images) and isinstance(parts.crops, Padded):  # others were stored in another size
        then, now = config["data"].get("train_fingerprint"), train.fingerprint()
        if then != now:
            raise UserError(f"The training images of {parts.source.name} are not those that the run was trained on.")
    if (
        had_teacher
        and parts.teacher is not None
        and parts.teacher.weights_hash() != config.get("teacher", {}).get("weights")
    ):
        raise UserError("The teacher is not the one that the run was distilled from: its weights are others.")


def _heads(run: Run, parts: Prepared, plan: Plan) -> tuple[Heads | None, tuple[str, ...]]:
    """The heads with their weights, out of the last checkpoint; None where there are none, and what is to be said."""
    terms = {name: term for name, (_, term) in plan.stages[-1].loss.items() if isinstance(term, Similarity)}
    if not terms:
        return None, ()
    if not (path := run.checkpoints.last).exists():
        return None, (f"{path} is gone, and the heads with it: nothing self-supervised is shown.",)
    name, term = next(iter(terms.items()))
    state = run.last_checkpoint()["modules"]
    network = copy.deepcopy(parts.student)
    network.backbone.load_state_dict(state["student"])
    load_state(term, state[name], name)
    load_state(plan.modules["teacher_head"], state["teacher_head"], "teacher_head")
    return Heads(term, plan.modules["teacher_head"], network), ()
