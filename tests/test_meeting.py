"""Processes that torchrun starts again meet each other, not those of the attempt before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from time import sleep

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store

from sskd.data.feed import Share
from sskd.errors import UserError
from sskd.train.meeting import fresh

SOON, LONG = timedelta(seconds=0.1), timedelta(seconds=60)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def attempt(store: Store, pool: ThreadPoolExecutor, size: int, late: int) -> list[Store]:
    """Each process's part of the store, where the process of number `late` comes last."""

    def come(rank: int) -> Store:
        sleep(0.2 * (rank == late))
        return fresh(store, Share(rank, size), LONG)

    return [one.result() for one in [pool.submit(come, rank) for rank in range(size)]]


@pytest.mark.parametrize("late", [0, 2])
def test_all_of_an_attempt_share_a_part_that_is_new(late: int, pool: ThreadPoolExecutor) -> None:
    store = HashStore()
    for number in range(3):
        parts = attempt(store, pool, 3, late)
        assert not parts[1].check(["address"])
        parts[0].set("address", str(number))
        assert [part.get("address").decode() for part in parts] == [str(number)] * 3


def test_those_that_ended_before_they_met_do_not_count(pool: ThreadPoolExecutor) -> None:
    """The second process asked and was killed; the first is told by the new one's request, not by the old."""
    store = HashStore()
    store.set("asked/1", "of a process that has ended")
    first, second = attempt(store, pool, 2, 1)
    first.set("address", "here")
    assert second.get("address") == b"here"


def test_one_that_never_comes() -> None:
    with pytest.raises(UserError, match=r"Only 1 of the 3 processes of this training came within 0:00:00\.1"):
        fresh(HashStore(), Share(0, 3), SOON)
