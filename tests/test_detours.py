"""Ways around slow kernels: the same values, the kernels avoided, the network left as it was."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import kernels
from benchmarks.tables import kernels_table
from sskd.train.detours import Detours


class Joined(nn.Module):
    """A batch norm whose gradient is a slice, behind depthwise convolutions of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4)
        self.wide = nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False)
        self.plain = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        found = self.plain(self.wide(self.strided(images)))
        return torch.cat([self.norm(found), found], dim=1)


class Seen(TorchDispatchMode):
    """The gradients that batch norms get, and the precisions of depthwise gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.dense: list[bool] = []
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.native_batch_norm_backward.default:
            last = args[0].is_contiguous(memory_format=torch.channels_last)
            self.dense.append(last if args[1].is_contiguous(memory_format=torch.channels_last) else False)
        if func is torch.ops.aten.convolution_backward.default:
            self.dtypes.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[torch.channels_last, torch.contiguous_format], ids=["last", "contiguous"])
def case(request: pytest.FixtureRequest) -> Iterator[tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    yield (
        Joined().to(memory_format=request.param),
        torch.randn(3, 4, 8, 8).to(memory_format=request.param).requires_grad_(),
    )


def gradients(network: Callable[[Tensor], Tensor], images: Tensor) -> list[Tensor]:
    parameters = network.parameters() if isinstance(network, nn.Module) else ()
    out = network(images)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    return [out, *torch.autograd.grad((out * weights).sum(), [images, *parameters])]


def distance(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).abs().max() / expected.abs().max())


def test_in_float64_nothing_changes(case: tuple[nn.Module, Tensor]) -> None:
    network, images = case[0].double(), case[1].detach().double().requires_grad_()
    plain = gradients(copy.deepcopy(network), images)
    Detours(network, bf16=False)
    for one, other in zip(gradients(network, images), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_under_bf16_the_forward_pass_is_the_same_and_gradients_are_no_worse(case: tuple[nn.Module, Tensor]) -> None:
    network, images = case
    exact = gradients(copy.deepcopy(network).double(), images.detach().double().requires_grad_())
    found = []
    for detours in (False, True):
        one = copy.deepcopy(network)
        if detours:
            Detours(one, bf16=True)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(gradients(one, images))
    plain, around = found
    assert torch.equal(plain[0], around[0])
    assert [one.dtype for one in plain] == [one.dtype for one in around]
    for before, after, truth in zip(plain, around, exact, strict=True):
        assert distance(after, truth) <= 1.5 * distance(before, truth) + 0.02


def test_the_slow_kernels_are_not_met() -> None:
    """And they are, without the detours."""
    images = torch.randn(3, 4, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    found = []
    for detours in (False, True):
        network = Joined().to(memory_format=torch.channels_last)
        if detours:
            Detours(network, bf16=True)
        with Seen() as seen, torch.autocast("cpu", torch.bfloat16):
            gradients(network, images)
        found.append((seen.dense, seen.dtypes))
    low, high = torch.bfloat16, torch.float32
    assert found == [([False], [low, low, low]), ([True], [low, high, high])]  # from the last layer to the first


def test_the_network_is_left_as_it_was() -> None:
    network = Joined()
    before = {name: set(vars(part)) for name, part in network.named_modules()}
    detours = Detours(network, bf16=True)
    assert "forward" in vars(network.strided) and "forward" not in vars(network.plain) and network.norm._forward_hooks
    detours.close()
    assert {name: set(vars(part)) for name, part in network.named_modules()} == before
    assert not network.norm._forward_hooks


def test_a_compiled_step_takes_the_detours_too(case: tuple[nn.Module, Tensor]) -> None:
    network, images = case
    exact = gradients(copy.deepcopy(network).double(), images.detach().double().requires_grad_())
    Detours(network, bf16=True)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        for one, truth in zip(gradients(compiled, images), exact, strict=True):
            assert distance(one, truth) < 0.1  # bf16: biases are sums of many rounded values


def test_a_batch_norm_whose_output_nothing_reads() -> None:
    """Autograd gives such a gradient as None."""

    class Half(torch.autograd.Function):
        """Reads one of two; of the other it returns no gradient."""

        @staticmethod
        def forward(ctx: Any, one: Tensor, other: Tensor) -> Tensor:
            return one + 0 * other

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            return gradients[0], None

    network, images = nn.Sequential(nn.BatchNorm2d(4)), torch.randn(3, 4, 8, 8, requires_grad=True)
    Detours(network, bf16=False)
    Half.apply(images * 2, network(images)).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None and torch.equal(images.grad, torch.full_like(images, 2))


def test_the_measurement(tmp_path: Path) -> None:
    found = kernels.main(rounds=1, count=2, threads=1, out=tmp_path / "kernels.json")
    (table,) = kernels_table(found)
    assert len(table.rows) == len(found["parts"]) and all(len(row) == len(table.head) for row in table.rows)
    assert all(min(row["times"]) > 0 for row in found["parts"].values())
