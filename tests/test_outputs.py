"""Networks that return more than logits, and what is said of images that a network cannot take."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.models.load import Brought, Facts, from_module
from sskd.models.network import Network
from sskd.models.normalisation import Normalisation

NAMES, PLAIN = tuple("abcd"), Normalisation((0.5,) * 3, (0.25,) * 3, "the test")


class ModelOutput(OrderedDict[str, Any]):
    """As Hugging Face's: a dictionary whose values are attributes too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


@dataclass
class Answer:
    logits: Tensor


class Returning(nn.Module):
    """Returns what is asked for, in training and in eval mode."""

    def __init__(self, training: str, evaluating: str, channels: int = 3, pool: bool = True) -> None:
        super().__init__()
        self.kinds = {True: training, False: evaluating}
        self.body = nn.Sequential(nn.Conv2d(channels, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5))
        self.pool, self.fc = pool, nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Any:
        maps = self.body(images)
        features = maps.mean((2, 3)) if self.pool else maps.flatten(1)
        logits = self.fc(features)
        kinds: dict[str, Any] = {
            "tensor": logits,
            "tuple": (logits, features),
            "dictionary": {"logits": logits, "features": features},
            "output": ModelOutput(loss=None, logits=logits),
            "object": Answer(logits),
            "other": {"scores": logits},
            "few": logits[:, :3],
        }
        return kinds[self.kinds[self.training]]


def network(backbone: nn.Module) -> Network:
    return Network("own", backbone, PLAIN, NAMES)


@pytest.mark.parametrize("kind", ["tensor", "dictionary", "output", "object"])
def test_logits_are_read(kind: str) -> None:
    torch.manual_seed(0)
    made, images = network(Returning(kind, kind)), torch.rand(2, 3, 8, 8)
    assert made.shapes((3, 8, 8))["logits"] == (4,)
    made.check_training((3, 8, 8))
    made.eval()
    expected = made.backbone.fc(made.backbone.body(made.prepared(images)).mean((2, 3)))  # type: ignore[operator,union-attr]
    torch.testing.assert_close(made(images), expected)
    ordered = made.fitted(("d", "a"), (3, 0), {})
    torch.testing.assert_close(ordered(images), expected[:, [3, 0]])
    compiled = torch.compile(made, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), expected)
    exported = torch.export.export(made, (images,)).module()
    torch.testing.assert_close(exported(images), expected)


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        ("tuple", r"in training mode a tuple \(tensor \[2, 4\], tensor \[2, 5\]\)\. It must return logits \[N, 4\]"),
        ("other", r"in training mode a dict \(scores: tensor \[2, 4\]\)"),
        ("few", r"in training mode a tensor of shape \(2, 3\)"),
    ],
)
def test_other_values_in_training_are_refused(training: str, reason: str) -> None:
    made = network(Returning(training, "tensor"))
    made.shapes((3, 8, 8))
    with pytest.raises(UserError, match=reason):
        made.check_training((3, 8, 8))


def test_trying_it_in_training_mode_leaves_no_trace() -> None:
    made = network(Returning("tensor", "tensor")).eval()
    before, drawn = {key: value.clone() for key, value in made.state_dict().items()}, torch.get_rng_state()
    made.check_training((3, 8, 8))
    assert torch.equal(drawn, torch.get_rng_state()) and not any(module.training for module in made.modules())
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(images.mean((2, 3))).no_such_method()
        return logits


@pytest.mark.parametrize(
    ("backbone", "side", "advice"),
    [
        (Returning("tensor", "tensor", channels=1), 8, r"takes 1 channels and is given 3\. A factory that has a para"),
        (Returning("tensor", "tensor"), 2, r"takes images of 4 pixels\. Choose a shallower network or larger images"),
        (Returning("tensor", "tensor", pool=False), 8, "it is the network's own code: --debug shows"),
        (Broken(), 8, r"no_such_method'\. Other sizes and channels do not help"),
    ],
)
def test_each_cause_has_its_own_advice(backbone: nn.Module, side: int, advice: str) -> None:
    with pytest.raises(UserError, match=rf"own cannot take images of 3x{side}x{side} .*{advice}") as refused:
        network(backbone).shapes((3, side, side))
    assert ("shallower" in str(refused.value)) == (side == 2)


def test_half_weights_are_refused() -> None:
    with pytest.raises(UserError, match=r"own has weights in bfloat16\. Give it in float32 \(module\.float\(\)\)"):
        network(Returning("tensor", "tensor").bfloat16()).shapes((3, 8, 8))


def test_a_module_is_given_images_of_the_size_that_is_stated() -> None:
    stated = Brought("module:Returning", size=16)
    made = from_module(Returning("tensor", "tensor"), "module:Returning", stated, Facts(NAMES, 3, PLAIN))
    assert made.size == 16 and made.fitted(NAMES, None, {}).prepared(torch.rand(1, 3, 8, 8)).shape == (1, 3, 16, 16)
