"""Several processes that train one network: each takes its rows of every batch, and all take the same step.

The batch is the whole one: `batch_size` images on one process or on eight, with the same draws, so that neither the
learning rate nor the schedule depends on how many take part. Gradients are averaged after the backward pass, in one
message: a compiled backward pass delivers all of them at its end, so there is nothing to overlap with.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import _functional_collectives as collectives

from sskd.data.feed import Share
from sskd.errors import UserError
from sskd.methods.plan import Outputs, Term
from sskd.train.meeting import fresh, torchruns_store
from sskd.train.meters import Meter
from sskd.views.pretext import Batch

# A process that is lost is seen by torchrun and by the connections that break. Waiting is no sign of a loss: the first
# process may be waiting for a run that trains the head which this one needs.
PATIENCE = timedelta(hours=24)

BACKENDS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")

Relations = Literal["global", "per_device"]
Norms = Literal["per_device", "synchronised"]


@dataclass(frozen=True)
class World:
    """The processes of this run. Alone, everything here leaves its arguments as they are.

    `relations`: terms that relate images see the whole batch, or only this process's rows of it. Terms that remember
    images always see the whole batch, so that all processes remember the same. `batch_norm`: what trains normalises by
    the statistics of this process's images, or of the whole batch.
    """

    share: Share = field(default_factory=Share)
    relations: Relations = "global"
    batch_norm: Norms = "per_device"

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.share.size

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.share.rank == 0

    def gathers(self, term: Term) -> bool:
        """Whether a term is given the whole batch."""
        remembers = type(term).update is not Term.update
        return self.size > 1 and term.relates and (remembers or self.relations == "global")

    def agreed(self, value: Any) -> Any:
        """What the first process says, on all. Tensors are to be on the CPU."""
        if self.size == 1:
            return value
        box = [value if self.first else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def refuse_others(self, facts: Mapping[str, Any]) -> None:
        """Facts that are to be the same on all: machines may hold different copies of a file.

        Raises:
            UserError: names those that differ from the first process's.
        """
        theirs = self.agreed(dict(facts))
        if differing := [name for name, value in facts.items() if theirs[name] != value]:
            raise UserError(
                f"Process {self.share.rank} has other {' and '.join(differing)} than the first. Let all machines see "
                "the same files, and start again."
            )

    def spread(self, modules: Iterable[nn.Module]) -> None:
        """Give all processes the first one's weights: what draws them may not be seeded by torch."""
        if self.size == 1:
            return
        for value in (value for module in modules for value in module.state_dict().values()):
            sent = value.contiguous()
            dist.broadcast(sent, 0)
            value.copy_(sent)

    def listed(self, value: Any) -> list[Any]:
        """Every process's value, in order of rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def collected(self, meter: Meter, device: torch.device) -> Meter:
        """What all processes have measured, with the first; the others go on with an empty meter."""
        if self.size == 1:
            return meter
        state = meter.state()
        held = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in state.items()}
        merged = Meter.merged(self.listed(held), device)
        return merged if self.first else Meter()

    def together(self, values: Tensor) -> Tensor:
        """[b, ...] of each process as [B, ...] of the whole batch, with gradients, also inside a compiled graph.

        Backward adds up what the processes send to one row; as each computes the whole loss, that is `size` times its
        gradient, which the average over processes undoes.
        """
        if self.size == 1:
            return values
        gathered: Tensor = _gather(values.contiguous(), 0, _group())
        return gathered.clone()  # any operation waits for the message; a value that nobody reads would be left unwaited

    def whole(self, outputs: Outputs, taps: Iterable[str]) -> Outputs:
        """The whole batch's values at these taps."""
        return {tap: self.together(outputs[tap]) for tap in taps}

    def whole_batch(self, batch: Batch) -> Batch:
        """The whole batch, without its images, which no term that relates images reads."""
        labels, index, asked = (self.together(values) for values in (batch.labels, batch.index, batch.asked))
        return batch._replace(images=batch.images[:0], labels=labels, index=index, asked=asked)

    def average_statistics(self, modules: Mapping[str, nn.Module]) -> None:
        """The mean of the batch norms' running statistics: each process has seen other images."""
        if self.size == 1:
            return
        norms = [m for one in modules.values() for m in one.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
        self.average([v for m in norms for v in (m.running_mean, m.running_var) if m.training and v is not None])

    def average(self, tensors: list[Tensor]) -> None:
        """Put the mean over the processes in the place of each tensor; one message for each dtype."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            some = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in some])
            dist.all_reduce(flat)
            parts = torch.split(flat / self.size, [tensor.numel() for tensor in some])
            torch._foreach_copy_(some, [part.view_as(tensor) for part, tensor in zip(parts, some, strict=True)])


# The public collectives either have no gradient or are not traced by torch.compile. The second name is that of torch
# before 2.13.
_gather: Any = getattr(collectives, "all_gather_single_autograd", None) or collectives.all_gather_tensor_autograd


def _group() -> dist.ProcessGroup:
    assert dist.group.WORLD is not None
    return dist.group.WORLD


def launched() -> Share:
    """Which process this is, as torchrun has told it."""
    return Share(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def neighbours() -> int:
    """How many processes share this machine, this one included."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def local_device(device: str) -> str:
    """The device of this process: with several on a machine, "cuda" is the one of its number there.

    Raises:
        UserError: there are fewer GPUs than processes, or all are to take the same.
    """
    if launched().size == 1 or not device.startswith("cuda"):
        return device
    if device != "cuda":
        raise UserError(
            f"Several processes cannot share {device}: each takes the GPU of its number. Say --device cuda, and choose "
            "GPUs with CUDA_VISIBLE_DEVICES."
        )
    number = int(os.environ.get("LOCAL_RANK", 0))
    if number >= torch.cuda.device_count():
        raise UserError(
            f"Process {number} of this machine has no GPU: there are {torch.cuda.device_count()}. Start as many with "
            "torchrun --nproc-per-node, or say --device cpu."
        )
    return f"cuda:{number}"


def join(device: str, batch_size: int, relations: Relations, batch_norm: Norms) -> World:
    """Meet the other processes that torchrun has started; alone where it has started none.

    Raises:
        UserError: the batch cannot be split evenly; another process was lost before all had met.
    """
    share = launched()
    if share.size == 1:
        return World()
    if batch_size % share.size:
        low = batch_size // share.size * share.size
        raise UserError(
            f"batch_size is that of all processes together, and {batch_size} images do not split evenly among "
            f"{share.size}. Say --batch_size {low or share.size}{f' or {low + share.size}' if low else ''}."
        )
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if device.startswith("cuda") else "gloo"
        with losses_explained(share.size):
            store = fresh(torchruns_store(share), share)
            dist.init_process_group(backend, store=store, rank=share.rank, world_size=share.size, timeout=PATIENCE)
    return World(share, relations, batch_norm)


def refuse_uneven(images: int, batch_size: int, world: World) -> None:
    """A batch of all images, where there are fewer than `batch_size`, has to split evenly too.

    Raises:
        UserError: it does not.
    """
    if images < batch_size and images % world.size:
        raise UserError(
            f"There are {images} training images, fewer than batch_size {batch_size}, and they do not split evenly "
            f"among {world.size} processes. Say --batch_size {max(images // world.size, 1) * world.size}."
        )


@contextmanager
def losses_explained(size: int) -> Iterator[None]:
    """Say that another of `size` processes was lost, in place of what its broken connection looks like from here.

    Raises:
        UserError: one was.
    """
    try:
        yield
    except RuntimeError as error:  # what gloo raises, and DistError's base
        text = " ".join(str(error).split())
        if size == 1 or not (isinstance(error, dist.DistError) or any(name in text for name in BACKENDS)):
            raise
        raise UserError(
            f"Another of the {size} processes of this training was lost; see its own messages. The same command "
            f"continues from the last checkpoint, with as many processes or another number ({text[:120]})."
        ) from error


@contextmanager
def parted() -> Iterator[None]:
    """Part from the other processes at the end."""
    try:
        yield
    except BaseException:
        leave(abruptly=True)
        raise
    leave()


def leave(abruptly: bool = False) -> None:
    """Part from the other processes. `abruptly`: they may be in the midst of a message, for which NCCL would wait."""
    if not dist.is_initialized():
        return
    if abruptly and dist.get_backend() == "nccl":
        dist.distributed_c10d._abort_process_group()
    else:
        dist.destroy_process_group()
