"""A folded network computes what the network does."""

import copy

import pytest
import torch
from torch import Tensor, nn

from sskd.models.fold import error, folded, half_weights, inference_copy
from sskd.models.network import Network, create_network
from sskd.models.normalisation import Normalisation
from sskd.models.taps import Tap, Tapped

PLAIN = Normalisation((0.5,) * 3, (0.2,) * 3, "test")
# how many batch norms there are, and how many follow a convolution that nothing else reads
FOLDED = {
    "cifar_resnet20": (21, 21),
    "cifar_resnet8x4": (10, 10),
    "cifar_wrn_16_2": (13, 6),
    "cifar_vgg8": (5, 5),
    "cifar_mobilenet_v2": (53, 53),
    "cifar_shufflenet_v1": (49, 49),
    "cifar_shufflenet_v2": (56, 56),
    "cifar_resnet50": (53, 53),
    "resnet18": (20, 20),
    "convnext_atto": (0, 0),
    "torchvision:resnet18": (20, 20),
}


def network(name: str, side: int = 32) -> Network:
    """Of random statistics and weights, so that a norm that is forgotten shows."""
    torch.manual_seed(0)
    made = create_network(name, tuple("abcd"), (3, side, side), PLAIN).double().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean):
                assert isinstance(values, Tensor)
                values.data.normal_(0.5, 0.2)
            assert isinstance(module.running_var, Tensor)
            module.running_var.uniform_(0.5, 2)
    made.shapes((3, side, side))
    return made.requires_grad_(False)


def values_of(made: Network, images: Tensor) -> dict[str, Tensor]:
    tapped = Tapped(made, made.taps, (*made.taps, "logits"))
    with torch.no_grad():
        found = dict(tapped(images))
    tapped.close()
    return found


def images(side: int = 32) -> Tensor:
    return torch.rand(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FOLDED)
def test_the_same_values(name: str) -> None:
    made = network(name)
    before = copy.deepcopy(made.state_dict())
    cheaper, count = folded(made, images()[:1])
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert (norms, count) == FOLDED[name]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in cheaper.modules()) == norms - count
    expected, found = values_of(made, images()), values_of(cheaper, images())
    assert expected.keys() == found.keys()
    assert max(error(found[tap], expected[tap]) for tap in expected) < 1e-10
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    single = folded(made.float(), images()[:1].float())[0]
    rounded, exact = values_of(single, images().float()), values_of(made, images().float())
    assert max(error(rounded[tap], exact[tap]) for tap in exact) < 1e-4


def test_a_tap_between_them_forbids() -> None:
    made = network("cifar_resnet20")
    made.taps["between"] = Tap("backbone.conv1")
    cheaper, count = folded(made, images()[:1])
    assert count == 20
    assert error(values_of(cheaper, images())["between"], values_of(made, images())["between"]) < 1e-10


class Fickle(nn.Module):
    """Its way through depends on values, so that it cannot be traced."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x if x.sum() > 0 else -x)
        return found


def test_what_cannot_be_traced_stays() -> None:
    made = network("cifar_resnet20")
    made.backbone, made.taps = Fickle(made.backbone), {}
    cheaper, count = folded(made, images()[:1])
    assert count == 0
    assert torch.equal(cheaper(images()), made(images()))


def test_half_weights_are_what_autocast_makes_of_them() -> None:
    made = folded(network("cifar_resnet20").float(), images()[:1].float())[0]
    half = copy.deepcopy(made)
    half_weights(half)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(half(images().float()), made(images().float()))


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_wrn_16_2", "cifar_vgg8", "resnet18"])
def test_in_bf16_it_is_as_near_to_the_exact_values(name: str) -> None:
    """Rounded weights and folded norms do not add to what autocast loses anyway: at most 3 % of the largest value."""
    made = network(name)
    exact = values_of(made, images())
    plain = made.float()
    half = folded(plain, images()[:1].float())[0]
    half_weights(half)
    with torch.autocast("cpu", torch.bfloat16):
        usual, cheaper = values_of(plain, images().float()), values_of(half, images().float())
    lost, found = (max(error(values[tap], exact[tap]) for tap in exact) for values in (usual, cheaper))
    assert found < 0.03 and found < 1.5 * lost


def test_a_float64_run_folds_in_float64() -> None:
    made = network("cifar_resnet20").float()  # as it is loaded
    cheaper = inference_copy(made, (3, 32, 32), torch.float64)
    assert next(made.parameters()).dtype == torch.float32 and next(cheaper.parameters()).dtype == torch.float64
    expected, found = values_of(copy.deepcopy(made).double(), images()), values_of(cheaper, images())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in cheaper.modules())
    assert max(error(found[tap], expected[tap]) for tap in expected) < 1e-13  # folded in float32 first: 1e-7


def test_what_a_network_knows_of_its_taps_is_kept() -> None:
    torch.manual_seed(0)
    made = create_network("test_mambaout", tuple("abcd"), (3, 32, 32), PLAIN).eval()
    shapes = made.shapes((3, 32, 32))
    cheaper = inference_copy(made, (3, 32, 32), torch.float32)
    assert cheaper.taps == made.taps and made.taps["stage2"].channels_last
    assert {tap: values[0].shape for tap, values in values_of(cheaper, images().float()).items()} == shapes
