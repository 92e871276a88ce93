"""The four transformations against a reference that makes one view after the other."""

from collections import Counter

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from sskd.data.feed import Share
from sskd.errors import UserError
from sskd.views.transformations import TRANSFORMATIONS, Coloured, Transformations, Zoomed, transformations_of
from tests.oracles import pretexts

ALL = Transformations(tuple(TRANSFORMATIONS))
EACH = [Transformations((name,)) for name in TRANSFORMATIONS]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crops_of(*shape: int) -> Tensor:
    return torch.rand(shape, generator=seeded(9), dtype=torch.float64)


@pytest.mark.parametrize("transformations", [*EACH[1:], ALL], ids=[*[*TRANSFORMATIONS][1:], "all"])
@pytest.mark.parametrize(("size", "side", "channels"), [(5, 8, 3), (3, 7, 3), (2, 12, 1)])
def test_views(transformations: Transformations, size: int, side: int, channels: int) -> None:
    names = tuple(n for n in transformations.names if channels in (TRANSFORMATIONS[n].channels or (channels,)))
    if not names:
        pytest.skip("colours of grey images cannot be dropped")
    crops = crops_of(size, 4, channels, side, side)
    kept = crops.clone()
    views, asked = Transformations(names)(crops, seeded(4))
    slow, done = pretexts.transformed(crops, names, 4)
    assert asked.tolist() == done and torch.equal(crops, kept)
    torch.testing.assert_close(views, slow, rtol=0, atol=5e-4)  # the weights of grey differ in the fourth digit
    exact = [i for i in asked.unique().tolist() if i in (0, 1, 2, 3, 5)]
    for code in exact:
        torch.testing.assert_close(views[asked == code], slow[asked == code], rtol=0, atol=1e-12)
    assert views.dtype == torch.float64 and views.min() >= 0 and views.max() <= 1
    assert not torch.equal(views[:, 1:], crops[:, 1:])


def test_rotation_alone_draws_nothing() -> None:
    crops, generator = crops_of(3, 4, 3, 6, 6), seeded(0)
    views, asked = EACH[0](crops, generator)
    assert torch.equal(generator.get_state(), seeded(0).get_state())
    assert asked.tolist() == [[0, 1, 2, 3]] * 3
    assert all(torch.equal(views[:, k], torch.rot90(crops[:, k], k, (2, 3))) for k in range(4))


def test_each_view_draws_for_itself() -> None:
    """Uniform kinds, independent of each other and of the neighbours; and each of them with parameters of its own."""
    size = 3000
    views, asked = ALL(crops_of(1, 1, 3, 6, 6).expand(size, 4, -1, -1, -1), seeded(1))
    assert asked[:, 0].eq(0).all()
    kinds = torch.tensor([0, 1, 1, 1, 2, 3, 4])[asked[:, 1:]] - 1  # any rotation is one kind
    for k in range(3):
        counts = Counter(asked[:, k + 1].tolist())
        expected = {1: 1 / 12, 2: 1 / 12, 3: 1 / 12, 4: 1 / 4, 5: 1 / 4, 6: 1 / 4}
        assert max(abs(counts[code] / size - share) for code, share in expected.items()) < 0.03
    for pair in ((0, 1), (0, 2), (1, 2)):
        joint = Counter(map(tuple, kinds[:, pair].tolist()))
        assert len(joint) == 16 and max(abs(n / size - 1 / 16) for n in joint.values()) < 0.02
    following = Counter(zip(kinds[:-1, 2].tolist(), kinds[1:, 0].tolist(), strict=True))
    assert max(abs(n / size - 1 / 16) for n in following.values()) < 0.02
    for code, different in ((5, True), (6, True), (4, False)):
        made = views[asked == code].flatten(1)
        assert (len(made.unique(dim=0)) == len(made)) == different


def test_draws() -> None:
    drawn = Coloured().draw(24000, 8, seeded(0))
    for column, (low, high) in enumerate([(0.2, 1.8)] * 3 + [(-0.2, 0.2)]):
        values = drawn[:, column].sort().values
        assert low <= values[0] and values[-1] <= high
        torch.testing.assert_close(values, torch.linspace(low, high, 24000).double(), rtol=0, atol=0.02 * (high - low))
    orders = Counter(map(tuple, drawn[:, 4:].argsort(1).tolist()))
    assert len(orders) == 24 and max(abs(n / 1000 - 1) for n in orders.values()) < 0.15
    assert drawn.T.corrcoef().fill_diagonal_(0).abs().max() < 0.03
    left, top, right, bottom = Zoomed().draw(24000, 8, seeded(0)).T
    area, ratio = (right - left) * (bottom - top) / 64, (right - left) / (bottom - top)
    assert min(left.min(), top.min()) >= 0 and max(right.max(), bottom.max()) <= 8
    assert area.min() >= 0.08 - 1e-9 and area.max() <= 1 and ratio.min() >= 0.74 and ratio.max() <= 1.34
    torch.manual_seed(0)
    theirs = [
        RandomResizedCrop.get_params(torch.empty(1, 1000, 1000), [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)
    ]
    assert abs(area.mean() - sum(h * w for _, _, h, w in theirs) / 3e9) < 0.02


@pytest.mark.parametrize("transformations", [ALL, *EACH], ids=["all", *TRANSFORMATIONS])
def test_processes_make_the_views_of_one(transformations: Transformations) -> None:
    crops, generators = crops_of(6, 4, 3, 6, 6), [seeded(3) for _ in range(4)]
    whole = transformations(crops, generators[0])
    for rank in range(3):
        share = Share(rank, 3)
        mine = transformations(share.of(crops), generators[1 + rank], share)
        for part, value in zip(mine, whole, strict=True):
            torch.testing.assert_close(part, share.of(value), rtol=0, atol=1e-15)
        assert torch.equal(generators[1 + rank].get_state(), generators[0].get_state())


def test_views_depend_on_the_generator_alone() -> None:
    crops = crops_of(4, 1, 3, 6, 6).expand(-1, 4, -1, -1, -1)  # of one memory, as in evaluation
    before = torch.random.get_rng_state()
    first, second, third = (ALL(crops, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not torch.equal(first[0], third[0])
    assert torch.equal(first[0][:, 0], crops[:, 0])


def test_names() -> None:
    three = ("rotation", "crop_resize", "colour_distortion")
    assert transformations_of("all", 3) == (ALL, ())
    assert transformations_of("crop_resize", 3)[0].names == ("crop_resize",)
    assert transformations_of(["colour_dropping", "rotation"], 3)[0].names == ("rotation", "colour_dropping")
    fit, (note,) = transformations_of("all", 1)
    assert fit.names == three
    assert note == (
        "transformations: colour_dropping would do nothing to images of 1 channel; all are rotation, crop_resize, "
        "colour_distortion here."
    )
    assert transformations_of("all", 4)[0].names == ("rotation", "crop_resize")
    names = [Transformations(names).suffix for names in ((), *(one.names for one in EACH), ALL.names, three)]
    assert len({*names}) == len(names) and Transformations().suffix == ""


@pytest.mark.parametrize(
    ("names", "channels", "message"),
    [
        ("colour_dropping", 1, "would do nothing to images of 1 channel. What can be done to them: rotation, crop_re"),
        (["rotation", "colour_distortion"], 2, "colour_distortion would do nothing to images of 2 channels"),
        ("colour", 3, "no transformation named 'colour'.*'colour_d"),
        ([], 3, "one or more of rotation, colour_dropping, crop_resize, colour_distortion, or all; got"),
        (["rotation", "rotation"], 3, "one or more of"),
    ],
)
def test_names_that_are_refused(names: list[str] | str, channels: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        transformations_of(names, channels)
