"""Our CKA against pytorch-cka, an independent package: its unbiased HSIC in float64, and two whole networks."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sskd.analyses.cka import MinibatchCKA, gram, hsic
from sskd.analyses.features import tapped
from sskd.models.network import create_network
from sskd.models.normalisation import Normalisation

peer: Any = pytest.importorskip("cka", reason="compares with pytorch-cka: pip install 'sskd[peer]'")
pytestmark = pytest.mark.peer


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [4, 33])
def test_hsic(size: int) -> None:
    ones, others = ([normal(seed + i, size, 3 + i) + i for i in range(3)] for seed in (0, 10))
    theirs = peer.hsic_cross(*(torch.stack([x @ x.T for x in side]) for side in (ones, others)))
    ours = hsic(*(torch.stack([gram(x) for x in side]) for side in (ones, others)))
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_cka_of_two_networks() -> None:
    torch.manual_seed(0)
    names, norm = tuple("abcde"), Normalisation((0.5,) * 3, (0.25,) * 3, "the test")
    networks = [create_network(name, names, (3, 16, 16), norm).eval() for name in ("cifar_resnet8", "cifar_resnet14")]
    taps = ("stage1", "stage2", "stage3")
    images = torch.rand(3, 24, 3, 16, 16)
    ours = MinibatchCKA(taps, taps)
    with tapped(networks[0], *taps) as one, tapped(networks[1], *taps) as other:
        for batch in images:
            ours.update(one(batch), other(batch))
    layers = [[network.taps[name].module for name in taps] for network in networks]
    batches: Any = torch.utils.data.DataLoader(images.flatten(0, 1), batch_size=24)  # type: ignore[arg-type]
    (theirs,) = peer.compute_cka(*networks, batches, layers=layers[0], model2_layers=layers[1], progress=False)
    found = torch.tensor(ours.read(), dtype=torch.float32)
    assert torch.allclose(found.clamp(0, 1), theirs.cpu(), atol=2e-3) and float(found.min()) > 0.05
