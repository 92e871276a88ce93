"""The batch that every network and term sees, and what the self-supervised tasks that shape it are."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.data.feed import ALONE, Share
from sskd.data.source import DataInfo

Drawn = Mapping[str, Tensor]
"""What a pretext has drawn for one step."""
NOTHING: Drawn = MappingProxyType({})


class Batch(NamedTuple):
    """V views of B images in [0, 1]; each network normalises them for itself.

    A named tuple of tensors, so that a compiled step takes it as it is.
    """

    images: Float[Tensor, "B V C H W"]  # view 0 is plain; V = 1 unless a pretext asks for more
    labels: Int64[Tensor, "B"]
    index: Int64[Tensor, "B"]  # type: ignore[assignment]  # position in this run's training set; -1 where there is none
    asked: Int64[Tensor, "B V"]  # what was done to each view: rotation k, permutation, transformation
    epoch: Float[Tensor, ""]  # epochs of this stage that are done, for weights that warm up
    draws: Mapping[str, Mapping[str, Tensor]]  # what terms asked to have drawn for this step, by the term's name


class Views(Protocol):
    """Which views are made of an image."""

    name: str  # says all that the views depend on: results that students share are kept under it
    views: int
    own_crop: bool  # each view is cut from the image by a crop of its own

    def transform(
        self, crops: Float[Tensor, "B V C H W"], generator: torch.Generator, share: Share = ALONE
    ) -> tuple[Float[Tensor, "B V C H W"], Int64[Tensor, "B V"]]:
        """The views made of this process's crops in [0, 1], and what was done to each. View 0 stays as it is.

        All draws come from `generator`, on the CPU, and are those of the whole batch. Crops may share memory
        (`own_crop` False), so nothing is to be changed in place.
        """
        ...


class Pretext:
    """Views, and the question that a head is asked about them: M rows of K possible answers. To be derived from."""

    name: str
    views: int = 4
    own_crop: bool = True
    selective: bool = False  # whether selective transfer applies to the head's predictions
    relates: bool = False  # whether a row's answers depend on the batch's other images
    needs_index: bool = False  # whether an answer is a training image; then streams are refused

    def prepare(self, data: DataInfo) -> None:
        """Called once, before everything else.

        Raises:
            UserError: the question cannot be asked of this data.
        """

    def transform(
        self, crops: Float[Tensor, "B V C H W"], generator: torch.Generator, share: Share = ALONE
    ) -> tuple[Float[Tensor, "B V C H W"], Int64[Tensor, "B V"]]:
        """See `Views`."""
        raise NotImplementedError

    def head(self, dim: int, data: DataInfo) -> nn.Module:
        """A fresh head on the classifier's input [..., dim]."""
        raise NotImplementedError

    def notes(self, heads: Mapping[str, nn.Module]) -> tuple[str, ...]:
        """What a user should know before the run. `heads` are the student's and the teacher's."""
        return ()

    def draw(self, generator: torch.Generator, index: Int64[Tensor, "B"]) -> Drawn:
        """What the question needs of randomness or of the images' numbers, outside the step and on the CPU."""
        return {}

    def answers(self, head: nn.Module, features: Float[Tensor, "B V D"], drawn: Drawn) -> Float[Tensor, "M K"]:
        """A head's answers, as logits."""
        return self.logits(head(features))

    def logits(self, z: Float[Tensor, "B V E"]) -> Float[Tensor, "M K"]:
        """The answers of a head's outputs."""
        raise NotImplementedError

    def target(self, batch: Batch, drawn: Drawn = NOTHING) -> Int64[Tensor, "M"]:
        """The right answers."""
        raise NotImplementedError


def two_layers(dim: int, outputs: int) -> nn.Sequential:
    """The published head: Linear - ReLU - Linear."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, outputs))


class Plain:
    """One view, no question. For methods that learn from labels, predictions and features of the image itself."""

    name = "plain"
    views = 1
    own_crop = True

    def transform(
        self, crops: Float[Tensor, "B 1 C H W"], generator: torch.Generator, share: Share = ALONE
    ) -> tuple[Float[Tensor, "B 1 C H W"], Int64[Tensor, "B 1"]]:
        """Leave the view as it is."""
        return crops, torch.zeros(len(crops), 1, dtype=torch.int64, device=crops.device)
