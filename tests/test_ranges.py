"""One wording for all bounds."""

import math
from typing import Any

import pytest

from sskd.errors import UserError
from sskd.ranges import need_between, need_few, need_some, refuse_empty


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (-1, (0,), "a must not be negative; got -1."),
        (0, (1,), "a must be at least 1; got 0."),
        (0, (0, math.inf, "(]"), "a must be above 0; got 0."),
        (1, (0, 1, "[)"), "a must be from 0 to below 1; got 1."),
        (2, (0, 1), "a must be from 0 to 1; got 2."),
        (0, (0, 1, "(]"), "a must be above 0 and at most 1; got 0."),
        (math.inf, (0,), "a must be a finite number; got inf."),
        (math.nan, (0, math.inf), "a must be a finite number; got nan."),
        ("x", (0,), "a must be a number; got 'x'."),
    ],
)
def test_refused(value: Any, bounds: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        need_between("a", value, *bounds)
    assert str(caught.value) == message


def test_passed() -> None:
    need_between("a", None, 0)
    need_between("a", math.inf, 0, math.inf)
    need_between("a", 0, 0, 1, "[)")
    need_few("a", 256, 1)
    need_some("a", [1, "1"])
    refuse_empty(a="x", b=None, c=3)


def test_more_than_the_machine_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    need_few("threads", 512, 1)
    with pytest.raises(UserError, match=r"threads must be at most 512 on this machine, which has 64 cores; got 513"):
        need_few("threads", 513, 1)
