"""The one step: networks and terms in, total and terms out. It can be compiled as one graph."""

from collections.abc import Callable, Container, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.methods.plan import Outputs, Stage, Term
from sskd.models.network import Network
from sskd.models.taps import Tapped
from sskd.train.detours import Detours
from sskd.train.distributed import World
from sskd.train.recompute import Recomputed
from sskd.views.pretext import Batch

Precision = Literal["fp32", "bf16", "fp64"]
SIDES = ("student", "teacher")


@dataclass(frozen=True)
class Execution:
    """How a step runs on the machine at hand: what measurement may choose, nothing that changes the method."""

    device: str = "cpu"
    precision: Precision = "fp32"  # bf16: networks under autocast, weights and losses stay fp32
    channels_last: bool = False
    compiled: bool = False
    graphs: bool = False  # compiled, and the passes replayed as CUDA graphs
    captured: bool = False  # the whole step, optimiser and all, replayed as one CUDA graph
    micro_batch: int = 0  # images that are run at a time; 0: the whole batch of this process
    recompute: bool = False  # the student's blocks run again in the backward pass, to keep less in memory
    threads: int = 1
    folded: bool = False  # the teacher's batch norms are part of its convolutions, whose weights are bf16 under bf16

    @property
    def dtype(self) -> torch.dtype:
        """What the networks compute in."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}[self.precision]

    @property
    def eager(self) -> "Execution":
        """The same, operation by operation."""
        return replace(self, compiled=False, graphs=False, captured=False)


class Losses(NamedTuple):
    """What one step measured, all on the device."""

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]  # unweighted
    watched: dict[str, Float[Tensor, ""]]
    remembered: dict[str, dict[str, Tensor]]  # by term


class Step(nn.Module):
    """The networks and terms of one stage, as one callable on a batch.

    The teacher runs under `no_grad`. Outputs are raised to at least fp32 before any term sees them.
    """

    def __init__(
        self,
        stage: Stage,
        student: Network,
        teacher: Network | None,
        execution: Execution,
        world: World = World(),  # noqa: B008  # frozen
    ) -> None:
        super().__init__()
        self.world = world
        self.weights = {name: weight for name, (weight, _) in stage.loss.items()}
        self.terms: dict[str, Term] = {name: term for name, (_, term) in stage.loss.items()}
        self._owned = nn.ModuleDict(self.terms)
        self.execution = execution
        for term in self.terms.values():
            term.autocast = partial(autocast, execution)
        read = {
            side: tuple(dict.fromkeys(tap for _, term in stage.loss.values() for tap in getattr(term, f"{side}_taps")))
            for side in SIDES
        }
        self._read = read["teacher"]
        self.known: Outputs | None = None  # the teacher's values of all images, by number, where they never change
        self.student = Tapped(student, student.taps, read["student"]) if read["student"] else None
        self.teacher = Tapped(teacher, teacher.taps, read["teacher"]) if teacher and read["teacher"] else None
        differentiated = self.student is not None
        self._recomputed = Recomputed(student.backbone) if execution.recompute and differentiated else None
        on_cpu = differentiated and torch.device(execution.device).type == "cpu"
        self._detours = Detours(student.backbone, execution.precision == "bf16") if on_cpu else None

    def close(self) -> None:
        """Leave the networks as they were."""
        for changed in (self._detours, self._recomputed, self.student, self.teacher):
            if changed is not None:
                changed.close()

    def forward(self, batch: Batch) -> Losses:
        """The weighted sum of the stage's terms, each term, and what the terms watch."""
        known = self.known
        # The teacher first: what it needs in passing is free again before the student's values pile up for backward.
        teacher = {tap: values[batch.index] for tap, values in known.items()} if known else self.teacher_outputs(batch)
        return self.losses(self.student_outputs(batch), teacher, batch)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        """See `forward`; of outputs that are there already."""
        given = self._given(student, teacher, batch)
        seen = {name: term.remembering(*given[name]) for name, term in self.terms.items()}
        losses = {name: loss for name, (loss, _) in seen.items()}
        remembered = {
            name: {key: v.detach() for key, v in values.items()} for name, (_, values) in seen.items() if values
        }
        total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
        with torch.no_grad():
            watched = {
                key: value for name, term in self.terms.items() for key, value in term.watch(*given[name]).items()
            }
            if student:
                watched |= accuracy(student["logits"][:, 0], batch.labels)
        return Losses(total, losses, watched, remembered)

    def _given(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, tuple[Outputs, Outputs, Batch]]:
        """What each term sees: this process's part of the batch, or all of it."""
        whole = [term for term in self.terms.values() if self.world.gathers(term)]
        mine = (student, teacher, batch)
        if not whole:
            return dict.fromkeys(self.terms, mine)
        taps = {side: dict.fromkeys(t for one in whole for t in getattr(one, f"{side}_taps")) for side in SIDES}
        outputs = self.world.whole(student, taps["student"]), self.world.whole(teacher, taps["teacher"])
        everything = (*outputs, self.world.whole_batch(batch))
        return {name: everything if self.world.gathers(term) else mine for name, term in self.terms.items()}

    def update(self, losses: Losses, batch: Batch) -> None:
        """Let the terms store what they remember of a step; after its backward pass."""
        with torch.no_grad():
            whole = self.world.whole_batch(batch) if losses.remembered else batch
            for name, values in losses.remembered.items():
                self.terms[name].update(values, whole if self.world.gathers(self.terms[name]) else batch)

    @property
    def counting(self) -> dict[str, Term]:
        """The terms that measure something of images whose numbers they know."""
        return {
            name: term for name, term in self.terms.items() if term.needs_index and type(term).watch is not Term.watch
        }

    @torch.no_grad()
    def measure(self, batch: Batch, teacher: Outputs | None = None) -> dict[str, Float[Tensor, ""]]:
        """What the stage's trained side does on views for evaluation: accuracies, and what the terms watch.

        Of such images no term knows the number. `teacher`: its values, where no student takes part and they are known.
        """
        terms = self.terms.keys() - self.counting.keys()
        if self.student is None:
            return self._watch(terms, {}, self.teacher_outputs(batch) if teacher is None else teacher, batch)
        student = self.student_outputs(batch)
        seen = self._watch(terms, student, {}, batch) | accuracy(student["logits"][:, 0], batch.labels)
        return seen | {"logits": student["logits"].abs().mean()}  # an accuracy cannot show that they are not finite

    @torch.no_grad()
    def measure_counting(self, batch: Batch, teacher: Outputs | None = None) -> dict[str, Float[Tensor, ""]]:
        """What those terms watch that need the images' numbers, on training images. `teacher`: see `measure`."""
        if self.student is None:
            return self._watch(self.counting, {}, self.teacher_outputs(batch) if teacher is None else teacher, batch)
        return self._watch(self.counting, self.student_outputs(batch), {}, batch)

    def _watch(
        self, terms: Container[str], student: Outputs, teacher: Outputs, batch: Batch
    ) -> dict[str, Float[Tensor, ""]]:
        watching = (term for name, term in self.terms.items() if name in terms)
        return {key: value for term in watching for key, value in term.watch(student, teacher, batch).items()}

    def student_outputs(self, batch: Batch) -> Outputs:
        """The student's values at the taps that the terms read, [B, V, ...]."""
        return self._outputs(self.student, batch)

    @torch.no_grad()
    def teacher_outputs(self, batch: Batch) -> Outputs:
        """The teacher's, without gradients."""
        return self._outputs(self.teacher, batch)

    def teacher_read(self, batch: Batch) -> Outputs:
        """Of the teacher's values those that the terms read."""
        outputs = self.teacher_outputs(batch)
        return {tap: outputs[tap] for tap in self._read}

    def _outputs(self, tapped: Tapped | None, batch: Batch) -> Outputs:
        if tapped is None:
            return {}
        size = self.execution.micro_batch
        if torch.is_grad_enabled() or not 0 < size < len(batch.images):
            return self._at_once(tapped, batch.images)
        parts = [
            self._at_once(tapped, part) for part in torch.split(batch.images, size)
        ]  # evaluation is to fit as well
        return {tap: torch.cat([part[tap] for part in parts]) for tap in parts[0]}

    def _at_once(self, tapped: Tapped, images: Float[Tensor, "B V C H W"]) -> Outputs:
        values = run_network(tapped, images.flatten(0, 1), self.execution)
        return {name: torch.unflatten(value, 0, images.shape[:2]) for name, value in values.items()}


def runner(step: Step, execution: Execution) -> Callable[[Batch], Losses]:
    """The step as it is run: itself, or compiled as one graph for batches of one shape."""
    if not execution.compiled:
        return step
    compiled = torch.compile(step, fullgraph=True, dynamic=False, mode="reduce-overhead" if execution.graphs else None)
    if not execution.graphs:
        return compiled

    def replayed(batch: Batch) -> Losses:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # what the last step returned may be overwritten
        losses: Losses = compiled(batch)
        return losses

    return replayed


def autocast(execution: Execution) -> AbstractContextManager[object]:
    """The networks' precision."""
    if execution.precision != "bf16":
        return nullcontext()
    return torch.autocast(torch.device(execution.device).type, torch.bfloat16)


def run_network(tapped: Tapped, images: Float[Tensor, "N C H W"], execution: Execution) -> dict[str, Tensor]:
    """A placed network's logits and values at taps, in the execution's precision and memory format; at least fp32."""
    if execution.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with autocast(execution):
        values = tapped(images.double() if execution.precision == "fp64" else images)
    return {name: _raised(value) for name, value in values.items()}


def autocast_as_now(device: str) -> Callable[[], AbstractContextManager[object]]:
    """A function that gives the autocast context in force now."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def networks() -> AbstractContextManager[object]:
        return torch.autocast(device, dtype, enabled=enabled)

    return networks


def _raised(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def accuracy(logits: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]) -> dict[str, Float[Tensor, ""]]:
    """Top-1 and top-5 accuracy, as shares of the batch."""
    best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    return {"top1": best[:, 0].float().mean(), "top5": best.any(1).float().mean()}


def place(modules: Mapping[str, nn.Module], execution: Execution) -> None:
    """Move modules to the device, into the memory format and precision that the execution asks for.

    On a GPU convolutions look for their fastest algorithm: a run has few shapes, and the published code does so too.
    """
    if execution.device.startswith("cuda"):
        torch.backends.cudnn.benchmark = True
    for module in modules.values():
        module.to(execution.device)
        if execution.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if execution.precision == "fp64":
            module.double()


def make_trainable(stage: Stage, modules: Mapping[str, nn.Module]) -> list[nn.Module]:
    """Return the modules that a stage trains, trainable and in train mode; all else is frozen and in eval mode.

    `modules`: all that the stage reads, by name, the student among them.
    """
    for module in modules.values():
        module.requires_grad_(False).eval()
    trained = [modules[name].requires_grad_(True).train() for name in stage.trains]
    for name in stage.frozen:
        modules["student"].get_submodule(name).requires_grad_(False).eval()
    return trained


def merge(*groups: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """One namespace of all that a stage may train or keep.

    Raises:
        ValueError: two modules of one name; a mistake of the method, not of the user.
    """
    merged: dict[str, nn.Module] = {}
    for group in groups:
        for name, module in group.items():
            if name in merged:
                raise ValueError(f"the name {name!r} stands for two modules of this plan")
            merged[name] = module
    return merged
