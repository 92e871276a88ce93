"""From a batch to changed weights: operation by operation, or all of it as one CUDA graph."""

import gc
import random

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from sskd.train.averaging import Averaging
from sskd.train.gradients import gradients_of
from sskd.train.step import Losses, Step
from sskd.train.watch import synchronisations
from sskd.views.pretext import Batch

WARM = 3  # steps before the capture: kernels are chosen and compiled, momentum comes into being
UNFINISHED = list[torch.cuda.CUDAGraph]()  # whose recording failed: torch may still point to them


class Advance:
    """One step of training: gradients, their mean over processes, the optimiser, and what terms remember.

    Calling it with a batch and a learning rate returns what was measured. It may be overwritten by the next call.
    """

    refused = ""  # why steps are not captured, where that was asked for and cannot be

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer, averaging: Averaging) -> None:
        self.step, self.optimizer, self.averaging = step, optimizer, averaging
        self.gradients = gradients_of(step)

    def __call__(self, batch: Batch, rate: float) -> Losses:
        """See the class."""
        return self.at(rate, batch)

    def at(self, rate: float | Tensor, batch: Batch) -> Losses:
        """Operation by operation."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.gradients(batch)
        self.averaging()
        self.optimizer.step()
        self.step.update(losses, batch)
        # Else the loop would hold on to this step's part of autograd while the next is built.
        return Losses(*tree_map(torch.Tensor.detach, tuple(losses)))


class Captured(Advance):
    """The same, recorded once as a CUDA graph and then replayed: the host does next to nothing for a step.

    Small networks keep a GPU waiting for the host, which starts hundreds of kernels for each step. The first steps are
    ordinary ones, on a stream of their own, and the last of them is watched: where the host waits for the GPU, as some
    decompositions make it, or changes something that a graph would not, steps are not captured.
    """

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer, averaging: Averaging) -> None:
        super().__init__(step, optimizer, averaging)
        self._stream = torch.cuda.Stream(step.execution.device)  # type: ignore[no-untyped-call]
        # A graph's numbers never change, so its kernels read the rate; fused SGD reads float32.
        self._rate = torch.zeros((), device=step.execution.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch | None = None  # of one place in memory, which graphs and compiled steps rely on
        self._losses: Losses | None = None
        self._done = 0

    def __call__(self, batch: Batch, rate: float) -> Losses:
        """See the class."""
        if self._batch is None:
            self._batch = tree_map(lambda value: value.clone(memory_format=torch.contiguous_format), batch)
        if not self.refused and _form(batch) != _form(self._batch):
            self.refused = "batches are not of one form"
        if self.refused:
            return self.at(rate, batch)
        for kept, value in zip(tree_leaves(self._batch), tree_leaves(batch), strict=True):
            kept.copy_(value, non_blocking=True)
        self._rate.fill_(rate)
        if self._graph is None and self._done < WARM:
            return self._aside(self._batch)
        if self._graph is None:
            self._capture(self._batch)
        if self._graph is None or self._losses is None:
            return self.at(rate, batch)
        self._graph.replay()
        return self._losses

    def _aside(self, batch: Batch) -> Losses:
        """An ordinary step on the stream of the capture."""
        self._done += 1
        here, found = torch.cuda.current_stream(self._stream.device), list[Losses]()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            if self._done < WARM:
                found.append(self.at(self._rate, batch))
            else:
                before = on_host(self)
                waits = synchronisations(lambda: found.append(self.at(self._rate, batch)))
                reasons = [what for what, value in on_host(self).items() if value != before[what]]
                self.refused = ", ".join([*(["the host waits for the GPU"] if waits else []), *reasons])
        here.wait_stream(self._stream)
        return found[0]

    def _capture(self, batch: Batch) -> None:
        """Records a step, and runs nothing."""
        graph, pool, device = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle(), self._stream.device
        here = torch.cuda.current_stream(device)
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()  # graphs of a stage before, say, which cannot be destroyed meanwhile
        try:
            # Other threads, which bring the next batches, are free to do what they like.
            with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
                losses = self.at(self._rate, batch)
        except Exception as error:  # what is the step's own fault will be raised again without a recording
            self.refused = " ".join(str(error.__context__ or error).split())[:160] or type(error).__name__
            torch.cuda.set_stream(here)
            _give_up(graph, pool, torch.device(device).index or 0)
        else:
            self._graph, self._losses = graph, losses
            return
        # Only now: the error held what the step had made.
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()


def _give_up(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], index: int) -> None:
    """Undo what torch 2.11 leaves after a recording that failed on the `index`-th GPU."""
    UNFINISHED.append(graph)
    graph.reset()  # its memory, if the recording was ended
    try:
        # Else the allocator goes on as if recording, keeps every block, and asks the graph, which may be gone.
        torch._C._cuda_endAllocateToPool(index, pool)
        torch._C._cuda_releasePool(index, pool)
    except RuntimeError:  # it had ended
        pass
    generator = torch.cuda.default_generators[index]
    generator.graphsafe_set_state(generator.clone_state())  # it too goes on as if recording


def _form(batch: Batch) -> list[object]:
    leaves, structure = tree_flatten(batch)
    return [structure, *((value.shape, value.dtype) for value in leaves)]


def on_host(one: Advance) -> dict[str, object]:
    """What a step may change that a graph of it would not, each under what it means if it has changed."""
    held = [value for module in one.step.modules() for value in tree_leaves(dict(vars(module)))]
    state = tree_leaves(one.optimizer.state_dict()["state"])
    tensors = [*one.step.parameters(), *one.step.buffers(), *state, *held]
    _, numbers, *place = np.random.get_state(legacy=True)
    own = [value.get_state().tolist() for value in held if isinstance(value, torch.Generator)]
    return {
        "a step draws random numbers on the host": (
            torch.get_rng_state().tolist(),
            random.getstate(),
            list(numbers),
            place,
            own,
        ),
        "a step keeps count in Python": [value for value in held if isinstance(value, (bool, int, float, str))],
        "a step replaces tensors": [value.data_ptr() for value in tensors if isinstance(value, torch.Tensor)],
    }


def advance_of(step: Step, optimizer: torch.optim.Optimizer, averaging: Averaging) -> Advance:
    """As the step's execution asks for. What several processes send is not captured."""
    captured = step.execution.captured and step.world.size == 1
    return (Captured if captured else Advance)(step, optimizer, averaging)
