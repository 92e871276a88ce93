"""What is counted of an epoch, with a stand-in for the GPU; on a real one: tests/test_cuda.py."""

import warnings

import pytest
import torch

from sskd.train.step import Execution
from sskd.train.watch import synchronisations, watching


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[int | str]:
    """How torch was last told to tell of waits."""
    found: list[int | str] = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: found[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", found.append)
    return found


def test_waits_are_counted_and_other_warnings_passed_on(modes: list[int | str]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with watching(Execution("cuda", compiled=True)) as found:
            for _ in range(3):
                assert modes[-1] == "warn"
                warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
    assert found == {"waits": 3, "compilations": 0} and modes[-1] == 0
    assert [str(one.message) for one in seen] == ["something else"]


def test_a_count_within_a_count_leaves_the_outer_one_on(modes: list[int | str]) -> None:
    with watching(Execution("cuda")) as found:
        inner = synchronisations(lambda: warnings.warn("called a synchronizing CUDA operation", stacklevel=1))
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
    assert (inner, found) == (1, {"waits": 1}) and modes == [0, "warn", "warn", "warn", 0]


def test_nothing_is_counted_where_nothing_compiles_or_waits(modes: list[int | str]) -> None:
    with watching(Execution()) as found:
        pass
    assert found == {} and modes == [0]
