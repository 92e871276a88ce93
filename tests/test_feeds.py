"""What the loop is fed: the photographs' recipe, and that workers, memory and interruptions change nothing."""

import pytest
import torch

from sskd.data import load_source
from sskd.data.batches import Resident
from sskd.data.crops import Padded, Resized
from sskd.data.decoded import Decoded
from sskd.data.pictures import Pictures
from sskd.data.prepare import choose_crops, fits, image_shape, make_feed
from sskd.errors import UserError
from tests.photographs import write_photographs

CPU = torch.device("cpu")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    folder = write_photographs(tmp_path_factory.mktemp("photographs"), {"train": 5, "test": 1})
    train = load_source(str(folder)).train
    assert isinstance(train, Pictures)
    return train


def test_boxes_have_the_asked_area_and_shape() -> None:
    boxes = Resized(8, scale=(0.2, 0.6)).boxes(40, 60, 4000, seeded(0))
    left, top, right, bottom = boxes.T
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= 60 and bottom.max() <= 40
    share, ratio = (right - left) * (bottom - top) / 2400, (right - left) / (bottom - top)
    assert share.min() > 0.2 - 1e-6 and share.max() < 0.6 + 1e-6
    assert ratio.min() > 3 / 4 - 1e-6 and ratio.max() < 4 / 3 + 1e-6
    assert abs(share.mean() - 0.4) < 0.01 and abs(ratio.log().mean()) < 0.02
    assert (right - left).std() > 1 and left.std() > 1


def test_a_box_that_fits_nowhere_is_squeezed() -> None:
    left, top, right, bottom = Resized(8, scale=(1.0, 1.0)).boxes(10, 100, 50, seeded(0)).T
    assert (top == 0).all() and (bottom - top <= 10).all() and (right <= 100).all() and (left >= 0).all()


def test_crops_are_the_boxes_resized() -> None:
    """A ramp, cut and resized, is the ramp between the box's edges."""
    crops = Resized(16, flip=0.0, scale=(0.3, 0.9))
    ramp = torch.arange(64.0).mul(4).expand(1, 1, 64, 64).to(torch.uint8)
    generator = seeded(3)
    torch.rand(1, generator=generator)  # the flip
    left, _, right, _ = crops.boxes(64, 64, 5, generator).T
    cut = crops(ramp, 5, seeded(3))
    assert cut.shape == (1, 5, 1, 16, 16) and cut.dtype == torch.uint8
    centres = left[:, None] + (right - left)[:, None] * (torch.arange(16) + 0.5) / 16
    expected = ((centres - 0.5) * 4).clamp(0, 252)
    assert (cut[0, :, 0, 7].double() - expected).abs().max() <= 1.01


def test_one_flip_for_all_crops_of_an_image() -> None:
    ramp = torch.arange(64.0).mul(4).expand(200, 1, 64, 64).to(torch.uint8)
    cut = Resized(16)(ramp, 3, seeded(0)).float()
    rising = cut[..., -1].mean((-2, -1)) > cut[..., 0].mean((-2, -1))
    assert (rising == rising[:, :1]).all() and 70 < int(rising[:, 0].sum()) < 130


def test_whole_is_the_middle() -> None:
    pixels = torch.arange(64).view(1, 1, 8, 8).to(torch.uint8)
    assert torch.equal(Resized(4).whole(pixels), pixels[..., 2:6, 2:6])
    assert Resized(224).stored == 256


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 0.2), (0.5, 1.5)])
def test_impossible_scales(scale: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="scale is the lowest and highest share of the area"):
        Resized(8, scale=scale)


def test_workers_change_nothing(photographs: Pictures) -> None:
    crops = Resized(16)
    alone, helped = (Decoded(photographs, crops, CPU, workers) for workers in (0, 2))
    address = (3, "student", 1)
    for (one, generator), (other, other_generator) in zip(
        alone.epoch(4, 2, address), helped.epoch(4, 2, address), strict=True
    ):
        assert one.pixels.shape == (4, 2, 3, 16, 16)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert torch.equal(generator.get_state(), other_generator.get_state())
    pairs = zip(alone.whole(4), helped.whole(4), strict=True)
    assert all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", ["resident", "decoded"])
def test_an_epoch_goes_on_where_it_stopped(kind: str, photographs: Pictures) -> None:
    crops = Resized(16)
    feed = (
        Resident.on(photographs.stored(crops.stored), CPU, crops)
        if kind == "resident"
        else Decoded(photographs, crops, CPU, 0)
    )
    whole = [cut for cut, _ in feed.epoch(3, 2, (0, "a", 0))]
    rest = [cut for cut, _ in feed.epoch(3, 2, (0, "a", 0), first=1)]
    assert len(whole) == feed.steps(3) == 3 and len(rest) == 2
    assert all(
        torch.equal(a, b) for one, other in zip(whole[1:], rest, strict=True) for a, b in zip(one, other, strict=True)
    )
    other = [cut for cut, _ in feed.epoch(3, 2, (0, "a", 1))]
    assert not torch.equal(whole[0].pixels, other[0].pixels)
    seen = torch.cat([cut.index for cut in whole])
    assert len(seen.unique()) == 9
    assert torch.equal(torch.cat([cut.labels for cut in whole]), photographs.labels[seen])


def test_evaluation_is_the_same_from_memory_and_from_files(photographs: Pictures) -> None:
    crops = Resized(16)
    stored, decoded = Resident.on(photographs.stored(crops.stored), CPU, crops), Decoded(photographs, crops, CPU, 0)
    for one, other in zip(stored.whole(4), decoded.whole(4), strict=True):
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


def test_recipe_goes_by_size(photographs: Pictures) -> None:
    def chosen(images: object, size: int | None = None, crop: str = "auto") -> object:
        return choose_crops(images, crop, size, 0.5, 4, (0.1, 1.0))  # type: ignore[arg-type]

    small, large = photographs.stored(32), photographs.stored(96)
    assert chosen(small) == Padded(0.5, 4)
    assert chosen(small, 24) == Resized(24, 0.5, (0.1, 1.0))
    assert chosen(large) == Resized(96, 0.5, (0.1, 1.0))
    assert chosen(large, crop="padded") == Padded(0.5, 4)
    assert chosen(photographs) == Resized(224, 0.5, (0.1, 1.0))
    assert chosen(photographs, 64) == Resized(64, 0.5, (0.1, 1.0))
    with pytest.raises(UserError, match="crop padded needs images of one size"):
        chosen(photographs, crop="padded")
    with pytest.raises(UserError, match="crop padded keeps the images' 32 pixels; got size 16"):
        chosen(small, 16, "padded")
    with pytest.raises(UserError, match="The images are 32x32 pixels and size is 64: choose a size of at most 32"):
        image_shape(small, Resized(64))


def test_the_size_of_the_data_decides(photographs: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = Resized(16)
    needed = len(photographs) * 3 * crops.stored**2
    for room, expected in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr("sskd.data.prepare.IN_MEMORY", room)
        assert fits([photographs], crops) is expected
    assert isinstance(make_feed(photographs, crops, CPU, 0), Decoded)


def test_large_images_in_memory_are_reduced_as_photographs_are(photographs: Pictures) -> None:
    """Evaluation sees 7/8 of the side, not a small square in the middle."""
    large = photographs.stored(96)
    reduced = large.reduced(Resized(28).stored)
    assert reduced.pixels.shape == (10, 3, 32, 32) and torch.equal(reduced.labels, large.labels)
    seen = Resized(28).whole(reduced.pixels).float()
    expected = torch.nn.functional.interpolate(large.pixels[..., 6:90, 6:90].float(), (28, 28), mode="area")
    assert (seen - expected).abs().mean() < 8
    assert large.reduced(96) is large
