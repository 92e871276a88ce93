"""The batch that every network and term sees, and the protocol of the self-supervised tasks that shape it."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.data.source import DataInfo


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

    name: str
    views: int
    own_crop: bool  # each view is cut from the image by a crop of its own

    def transform(
        self, crops: Float[Tensor, "B V C H W"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "B V C H W"], Int64[Tensor, "B V"]]:
        """The views made of crops in [0, 1], and what was done to each. View 0 stays as it is.

        Crops may share memory (`own_crop` False), so nothing is to be changed in place.
        """
        ...


class Pretext(Views, Protocol):
    """Views, and the question that a head is asked about them."""

    selective: bool  # whether selective transfer applies to the head's predictions

    def head(self, dim: int, data: DataInfo) -> nn.Module:
        """A fresh head on the classifier's input [..., dim]."""
        ...

    def logits(self, z: Float[Tensor, "B V E"]) -> Float[Tensor, "M K"]:
        """The answers of a head's outputs: M questions, each with K possible answers."""
        ...

    def target(self, batch: Batch) -> Int64[Tensor, "M"]:
        """The right answers."""
        ...


class Plain:
    """One view, no question. For methods that learn from labels, predictions and features of the image itself."""

    name = "plain"
    views = 1
    own_crop = True

    def transform(
        self, crops: Float[Tensor, "B 1 C H W"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "B 1 C H W"], Int64[Tensor, "B 1"]]:
        """Leave the view as it is."""
        return crops, torch.zeros(len(crops), 1, dtype=torch.int64, device=crops.device)
