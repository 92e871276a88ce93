"""Views against a slow reference that makes them one image at a time."""

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sskd.data.crops import Padded
from sskd.data.source import DataInfo
from sskd.views import PRETEXTS
from sskd.views.contrastive import Contrastive
from sskd.views.pretext import Batch, Plain, Views


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels_of(*shape: int) -> Tensor:
    return torch.randint(1, 256, shape, generator=seeded(0), dtype=torch.uint8)  # no 0: that is padding alone


class OneCrop(Contrastive):
    """All views from one crop."""

    own_crop = False


def viewed(pixels: Tensor, views: Views, crops: Padded, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As the loop does it."""
    cut = crops(pixels, views.views if views.own_crop else 1, generator)
    made, asked = views.transform(cut.expand(-1, views.views, -1, -1, -1), generator)
    return made.float() / 255, asked


def by_hand(pixels: Tensor, views: Views, augment: Padded, seed: int) -> NDArray[np.float32]:
    """[B, V, C, H, W]: flip, pad with zeros, cut, rotate, scale, for one image and view after the other."""
    generator, (size, _, height, width) = seeded(seed), pixels.shape
    flips = torch.rand(size, generator=generator).tolist()
    crops = views.views if views.own_crop else 1
    corners = torch.randint(0, 2 * augment.padding + 1, (2, size, crops), generator=generator).tolist()
    made = []
    for i, image in enumerate(pixels.numpy()):
        flipped = image[:, :, ::-1] if flips[i] < augment.flip else image
        margin = (augment.padding, augment.padding)
        padded = np.pad(flipped, ((0, 0), margin, margin), constant_values=0)
        for k in range(views.views):
            top, left = (corners[axis][i][k if views.own_crop else 0] for axis in (0, 1))
            crop = padded[:, top : top + height, left : left + width]
            made.append(np.stack([np.rot90(channel, k) for channel in crop]))  # counter-clockwise
    return (np.stack(made).astype(np.float32) / np.float32(255)).reshape(size, views.views, *made[0].shape)


@pytest.mark.parametrize("views", [Contrastive(), OneCrop(), Plain()], ids=["contrastive", "one crop", "plain"])
@pytest.mark.parametrize("augment", [Padded(), Padded(padding=2), Padded(flip=0.0), Padded(1.0, 0), Padded(0, 0)])
@pytest.mark.parametrize("shape", [(7, 3, 8, 8), (1, 1, 5, 5)])
def test_augment(views: Views, augment: Padded, shape: tuple[int, ...]) -> None:
    pixels = pixels_of(*shape)
    kept = pixels.clone()
    images, asked = viewed(pixels, views, augment, seeded(5))
    assert images.dtype == torch.float32 and images.shape == (shape[0], views.views, *shape[1:])
    np.testing.assert_array_equal(images.numpy(), by_hand(pixels, views, augment, 5))
    assert asked.dtype == torch.int64 and asked.tolist() == [list(range(views.views))] * shape[0]
    assert torch.equal(pixels, kept)


def test_augment_of_oblong_images() -> None:
    pixels = pixels_of(4, 3, 6, 9)
    images, _ = viewed(pixels, Plain(), Padded(), seeded(1))
    np.testing.assert_array_equal(images.numpy(), by_hand(pixels, Plain(), Padded(), 1))


def test_flips_and_offsets_are_spread_evenly() -> None:
    """Channels that hold each pixel's row and column tell what was done to it."""
    size, side, padding = 3000, 16, 4
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pixels = torch.stack([rows + 100, columns + 100]).to(torch.uint8).expand(size, -1, -1, -1)
    images, _ = viewed(pixels, Contrastive(), Padded(), seeded(2))
    upright = torch.stack([torch.rot90(images[:, k], -k, (-2, -1)) for k in range(4)], 1)
    centre = (upright * 255).round().long()[..., side // 2, side // 2] - 100  # B V (row, column)
    right = (upright * 255).round().long()[..., side // 2, side // 2 + 1] - 100
    flipped = right[..., 1] < centre[..., 1]
    assert torch.equal(flipped, flipped[:, :1].expand(-1, 4)), "views of one image are flipped together"
    assert abs(flipped[:, 0].float().mean() - 0.5) < 0.05
    column = torch.where(flipped, side - 1 - centre[..., 1], centre[..., 1])
    offsets = torch.stack([centre[..., 0], column], -1) - side // 2 + padding  # B V (top, left)
    for k in range(4):
        for axis in (0, 1):
            counts = Counter(offsets[:, k, axis].tolist())
            assert set(counts) == set(range(9)) and max(abs(n / size - 1 / 9) for n in counts.values()) < 0.03
        assert len({tuple(pair) for pair in offsets[:, k].tolist()}) == 81
    same = (offsets[:, :1] == offsets[:, 1:]).all(-1).float().mean()
    assert abs(same - 1 / 81) < 0.01, "each view has a crop of its own"
    assert not torch.equal(offsets[:, 0], offsets[torch.randperm(size, generator=seeded(0)), 0])


def test_augment_depends_on_its_generator_alone() -> None:
    pixels, augment = pixels_of(6, 3, 8, 8), Padded()
    torch.manual_seed(0)
    first, _ = viewed(pixels, Contrastive(), augment, seeded(3))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    second, _ = viewed(pixels, Contrastive(), augment, seeded(3))
    assert torch.equal(before, torch.random.get_rng_state()) and torch.equal(first, second)
    assert not torch.equal(first, viewed(pixels, Contrastive(), augment, seeded(4))[0])
    generator = seeded(3)
    viewed(pixels, Contrastive(), augment, generator)
    assert not torch.equal(first, viewed(pixels, Contrastive(), augment, generator)[0])


@pytest.mark.parametrize("views", [Contrastive(), Plain()], ids=["contrastive", "plain"])
def test_plain_views(views: Views) -> None:
    pixels, generator = pixels_of(3, 2, 5, 5), seeded(0)
    whole = Padded().whole(pixels)[:, None]
    images, asked = views.transform(whole.expand(-1, views.views, -1, -1, -1), generator)
    images = images.float() / 255
    expected = np.stack([np.rot90(pixels.numpy(), k, (2, 3)) for k in range(views.views)], 1)
    np.testing.assert_array_equal(images.numpy(), expected.astype(np.float32) / np.float32(255))
    assert asked.tolist() == [list(range(views.views))] * 3
    assert torch.equal(generator.get_state(), seeded(0).get_state()), "nothing is drawn for evaluation"


def batch_of(size: int, views: int) -> Batch:
    labels = torch.zeros(size, dtype=torch.int64)
    images = torch.zeros(size, views, 3, 2, 2)
    return Batch(images, labels, labels, torch.zeros(size, views, dtype=torch.int64), torch.tensor(0.0), {})


@pytest.mark.parametrize(("size", "views"), [(1, 4), (2, 4), (5, 4), (3, 2)])
def test_contrastive_logits(size: int, views: int) -> None:
    z = torch.randn(size, views, 6, generator=seeded(size), dtype=torch.float64)
    logits, target = Contrastive().logits(z), Contrastive().target(batch_of(size, views))
    assert logits.shape == (size * (views - 1), size) and logits.dtype == torch.float64
    row = 0
    for i in range(size):
        for k in range(1, views):
            for j in range(size):
                a, b = z[i, k].numpy(), z[j, 0].numpy()
                assert logits[row, j].item() == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-14)
            assert target[row].item() == i
            row += 1
    assert row == len(target)


def test_contrastive_precision() -> None:
    """Cosines are taken in fp32 at least, whatever the length of the vectors."""
    z = torch.randn(4, 4, 64, generator=seeded(0))
    low = z.bfloat16()
    assert Contrastive().logits(low).dtype == torch.float32
    torch.testing.assert_close(Contrastive().logits(low), Contrastive().logits(low.float()), rtol=0, atol=0)
    torch.testing.assert_close(Contrastive().logits(z * 1000), Contrastive().logits(z))
    assert Contrastive().logits(torch.zeros(2, 4, 3)).eq(0).all()


def test_contrastive_head() -> None:
    facts = DataInfo("few", 4, ("a", "b"), torch.zeros(4, dtype=torch.int64), (0.5,), (0.2,), (1, 8, 8))
    head = Contrastive().head(12, facts)
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == {
        "0.weight": (12, 12),
        "0.bias": (12,),
        "2.weight": (12, 12),
        "2.bias": (12,),
    }
    w1, b1, w2, b2 = head.parameters()
    z = torch.randn(2, 4, 12, generator=seeded(0))
    torch.testing.assert_close(head(z), (z @ w1.T + b1).clamp(min=0) @ w2.T + b2)


def test_pretexts_are_named_after_themselves() -> None:
    for name, make in PRETEXTS.items():
        assert make().name == name and make().views > 1
