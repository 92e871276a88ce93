"""Of several processes each is fed its rows of every batch, whatever it is fed from."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from sskd.data import load_source
from sskd.data.batches import Resident
from sskd.data.crops import Resized
from sskd.data.decoded import Decoded
from sskd.data.feed import ALONE, Feed, Share
from sskd.data.pictures import Pictures
from sskd.data.streams import Sample, Stream, Streamed
from tests.photographs import write_photographs

CPU, SIZE = torch.device("cpu"), 4
Made = Callable[[Share], Feed]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    folder = write_photographs(tmp_path_factory.mktemp("photographs"), {"train": 5, "test": 1})
    train = load_source(str(folder)).train
    assert isinstance(train, Pictures)
    return train


@pytest.fixture(params=["resident", "decoded", "streamed"])
def made(request: pytest.FixtureRequest, pictures: Pictures) -> Made:
    crops = Resized(8)

    def samples(seed: int | None, first: int) -> Iterator[Sample]:
        order = torch.arange(len(pictures))
        if seed is not None:
            order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
        for i in order[first:].tolist():
            yield pictures.reader.read(int(pictures.place[i])), int(pictures.labels[i])

    kinds: dict[str, Made] = {
        "resident": lambda share: Resident.on(pictures.stored(crops.stored), CPU, crops, share),
        "decoded": lambda share: Decoded(pictures, crops, CPU, 0, share),
        "streamed": lambda share: Streamed(Stream(samples, len(pictures), "few"), crops, CPU, 2, share),
    }
    return kinds[request.param]


def fed(feed: Feed, first: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor, int]]:
    """Of each batch all that it holds, and the next number of its generator."""
    batches = feed.epoch(SIZE, 3, (0, 1), first)
    return [(*cut, int(torch.randint(2**40, (), generator=generator))) for cut, generator in batches]


@pytest.mark.parametrize("first", [0, 1])
def test_rows_of_all_processes_make_the_batch(made: Made, first: int) -> None:
    """Also where an epoch goes on in its middle; what is drawn after it is the same for all."""
    alone, parts = fed(made(ALONE), first), [fed(made(Share(rank, 2)), first) for rank in range(2)]
    assert len(alone) == 2 - first and all(len(part) == len(alone) for part in parts)
    for whole, one, other in zip(alone, *parts, strict=True):
        for expected, mine, theirs in zip(whole[:3], one[:3], other[:3], strict=True):
            assert len(mine) == len(theirs) == SIZE // 2 and torch.equal(torch.cat([mine, theirs]), expected)
        assert torch.equal(one[3], whole[3]) and torch.equal(other[3], whole[3])
        assert whole[4] == one[4] == other[4]


def test_whole_batches_in_turn(made: Made) -> None:
    """In evaluation; the last is smaller."""
    alone = [cut.pixels for cut in made(ALONE).whole(SIZE)]
    parts = [[cut.pixels for cut in made(Share(rank, 2)).whole(SIZE)] for rank in range(2)]
    assert [len(pixels) for pixels in alone] == [4, 4, 2]
    in_turn = [parts[0][0], parts[1][0], parts[0][1]]
    assert all(torch.equal(one, other) for one, other in zip(alone, in_turn, strict=True))
    assert [len(part) for part in parts] == [2, 1]
