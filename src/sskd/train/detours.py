"""Ways around kernels of PyTorch that are slow on a CPU: the same mathematics, on another path."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

WIDEST = 3  # the widest depthwise kernel whose bf16 gradients are as fast as fp32's


class Detours:
    """A student's batch norms and depthwise convolutions, trained on a CPU without the slow kernels.

    - The gradient of a concatenation is a slice, and the backward pass of a batch norm on a tensor with gaps takes
      several times as long as on a dense one: it is copied first.
    - The bf16 gradients of a depthwise convolution with a stride, or of more than 3 x 3, take several times as long
      as fp32's: under `bf16` they are computed in fp32 and rounded; the forward pass stays as it is.

    `benchmarks/kernels.py` measures both. Ends with `close()`.
    """

    def __init__(self, network: nn.Module, bf16: bool) -> None:
        norms = [part for part in network.modules() if isinstance(part, _BatchNorm)]
        self._handles = [norm.register_forward_hook(_asks_for_dense) for norm in norms]
        convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d) and _slow_in_bf16(part)]
        self._changed = [(part, part.__dict__.get("forward")) for part in convolutions if bf16]
        for part, _ in self._changed:
            part.forward = partial(with_fp32_gradients, part)  # type: ignore[method-assign]

    def close(self) -> None:
        """Leave the network as it was."""
        for handle in self._handles:
            handle.remove()
        for part, own in self._changed:
            del part.forward  # the class has another
            if own is not None:
                part.forward = own  # type: ignore[method-assign]
        self._handles.clear()
        self._changed.clear()


def _asks_for_dense(_: nn.Module, args: Any, output: Tensor) -> None:
    if output.requires_grad and not torch.compiler.is_compiling():  # a compiled backward pass has no such kernel
        output.register_hook(partial(_dense, _format_of(output)))  # type: ignore[no-untyped-call]


def _format_of(value: Tensor) -> torch.memory_format:
    last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _dense(memory_format: torch.memory_format, gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.contiguous(memory_format=memory_format)


def _slow_in_bf16(convolution: nn.Module) -> bool:
    if type(convolution) is not nn.Conv2d or isinstance(convolution.padding, str):  # subclasses do more
        return False
    depthwise = convolution.groups == convolution.in_channels > 1 and convolution.padding_mode == "zeros"
    return depthwise and (max(convolution.stride) > 1 or max(convolution.kernel_size) > WIDEST)


def with_fp32_gradients(convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """A convolution of one filter for each channel, under autocast, whose gradients are computed in fp32."""
    dtype = torch.get_autocast_dtype("cpu")
    bias = None if convolution.bias is None else convolution.bias.to(dtype)
    how = (convolution.stride, convolution.padding, convolution.dilation)
    found: Tensor = _Depthwise.apply(images.to(dtype), convolution.weight.to(dtype), bias, *how)  # type: ignore[no-untyped-call]
    return found


class _Depthwise(torch.autograd.Function):
    """Keeps what it was given, in its own precision, and raises it for the gradients alone."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Any:
        """The convolution as it is."""
        ctx.save_for_backward(images, weight)
        ctx.how, ctx.bias = how, bias is not None
        return torch.ops.aten.conv2d(images, weight, bias, *how, images.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """In fp32, rounded."""
        images, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.how
        needed = [*ctx.needs_input_grad[:2], ctx.bias]
        found = torch.ops.aten.convolution_backward(
            gradients[0].float(), images.float(), weight.float(), [len(weight)] if ctx.bias else None,
            stride, padding, dilation, False, [0, 0], images.shape[1], needed,
        )  # fmt: skip
        return *(None if one is None else one.to(images.dtype) for one in found), None, None, None
