"""A frozen network made cheaper to run: batch norms folded into the convolutions before them."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sskd.models.network import Network
from sskd.models.taps import Tapped

TOLERANCE = {torch.float64: 1e-10}  # of the largest value at a tap
TOLERANCE_BELOW = 1e-4  # in fp32


def folded(network: Network, image: Float[Tensor, "1 C H W"]) -> tuple[Network, int]:
    """A copy in which each batch norm that alone reads a convolution is part of it; how many were folded.

    Logits and all taps stay equal within rounding, which is verified on `image`; where they do not, or where the
    network's code cannot be traced, nothing is folded. The network itself, in eval mode, is left untouched.
    """
    copied = copy.deepcopy(network)
    pairs = _pairs(copied)
    for convolution, norm in pairs:
        _fold(copied.backbone, convolution, norm)
    if pairs and not _equal(network, copied, image):
        return copy.deepcopy(network), 0
    return copied, len(pairs)


def inference_copy(network: Network, shape: tuple[int, int, int], dtype: torch.dtype) -> Network:
    """The frozen network as it is run on images [C, H, W] of this shape: in its dtype before it is folded, so that a
    float64 run folds in float64. With bfloat16, which autocast runs, it is folded in float32 and keeps bf16 weights.
    """
    half = dtype == torch.bfloat16
    converted = copy.deepcopy(network).to(torch.float32 if half else dtype)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(network.mean.device)
    copied, _ = folded(converted, image.to(converted.mean.dtype))
    if half:
        half_weights(copied)
    return copied.requires_grad_(False)


def half_weights(network: Network) -> None:
    """Convolutions' and linear layers' weights in bf16, so that autocast need not convert them at each forward."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)


class _Tracer(fx.Tracer):
    """Goes into modules that hold a convolution or a batch norm alone: what others do with values is theirs."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the trace stays outside."""
        if isinstance(m, nn.Conv2d | nn.BatchNorm2d):
            return True
        return not any(isinstance(part, nn.Conv2d | nn.BatchNorm2d) for part in m.modules())


def _pairs(network: Network) -> list[tuple[str, str]]:
    """Names of convolutions and batch norms to fold, from the flow of data through the backbone."""
    backbone = network.backbone
    try:
        graph = _Tracer().trace(backbone)
    except Exception:  # code that depends on values: the tracer raises whatever that code runs into
        return []
    modules = dict(backbone.named_modules())
    called = [node for node in graph.nodes if node.op == "call_module"]
    times = [modules[str(node.target)] for node in called]
    read = {(tap.module.removeprefix("backbone."), tap.at) for tap in network.taps.values()}
    found = []
    for node in called:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        convolution, norm = modules[str(before.target)], modules[str(node.target)]
        once = times.count(convolution) == times.count(norm) == 1
        watched = {(str(before.target), "out"), (str(node.target), "in")} & read
        if once and not watched and _foldable(convolution, norm):
            found.append((str(before.target), str(node.target)))
    return found


def _foldable(convolution: nn.Module, norm: nn.Module) -> bool:
    """Plain modules alone: subclasses do more, such as standardise weights or apply an activation."""
    plain = type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_mean is not None
    return plain and not parametrize.is_parametrized(convolution)


def _fold(backbone: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = backbone.get_submodule(convolution), backbone.get_submodule(norm)
    assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
    values = (conv.weight, conv.bias, bn.running_mean, bn.running_var)
    weight, bias, mean, variance = (None if one is None else one.detach().double() for one in values)
    scale, shift = (None if one is None else one.detach().double() for one in (bn.weight, bn.bias))
    new, offset = fuse_conv_bn_weights(weight, bias, mean, variance, bn.eps, scale, shift)  # type: ignore[arg-type]
    conv.weight = nn.Parameter(new.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(offset.to(conv.weight.dtype), requires_grad=False)
    backbone.set_submodule(norm, nn.Identity())


def _equal(network: Network, copied: Network, image: Float[Tensor, "1 C H W"]) -> bool:
    values = []
    for one in (network, copied):
        modes = {module: module.training for module in one.modules()}
        one.eval()
        tapped = Tapped(one, one.taps, (*one.taps, "logits"))
        try:
            with torch.no_grad():
                values.append({key: value.double() for key, value in tapped(image).items()})
        finally:
            tapped.close()
            for module, mode in modes.items():
                module.training = mode
    tolerance = TOLERANCE.get(image.dtype, TOLERANCE_BELOW)
    return all(error(values[1][key], value) < tolerance for key, value in values[0].items())


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value expected."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
