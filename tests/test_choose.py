"""Which execution a run takes."""

from typing import Any

import pytest
import torch

from sskd.methods import METHODS
from sskd.train import choose
from sskd.train.choose import candidates, fastest, title
from sskd.train.step import Execution
from sskd.train.trial import Timed, Work
from tests.trainers import build


def chosen(monkeypatch: pytest.MonkeyPatch, seconds: dict[tuple[str, int], float], vary: bool) -> tuple[Execution, Any]:
    monkeypatch.setattr(choose, "time_step", lambda option, *_: Timed(seconds[option.precision, option.threads], 1.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    options = candidates(Execution(threads=2), "auto", True)
    nothing: Any = None
    best, timed, refused = fastest(options, nothing, vary_threads=vary)
    assert not refused
    return best, timed


@pytest.mark.parametrize(
    ("alone", "vary", "threads"), [(0.1, True, 1), (0.49, True, 2), (3.0, True, 2), (0.1, False, 2)]
)
def test_one_thread_where_others_keep_the_cores_busy(
    alone: float, vary: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {("fp32", 2): 1.0, ("bf16", 2): 0.5, ("bf16", 1): alone}
    best, timed = chosen(monkeypatch, seconds, vary)
    assert (best.precision, best.threads) == ("bf16", threads)
    expected = {"fp32 channels_last": 1.0, "bf16 channels_last": 0.5}
    assert timed == (expected | {"bf16 channels_last, 1 thread": alone} if vary else expected)


def test_measuring_changes_nothing() -> None:
    trainer = build(METHODS["sskd"])
    before = {name: value.clone() for name, value in trainer.student.state_dict().items()}
    state = torch.get_rng_state()
    options = candidates(Execution(), "auto", None)
    assert len({title(option) for option in options}) == 4
    work = Work(trainer.student, trainer.teacher, trainer.plan, 4, (3, 8, 8))
    best, timed, refused = fastest(options, work, repeats=1)
    assert best in options and not refused
    assert set(timed) == {title(option) for option in options}
    assert all(value > 0 for value in timed.values())
    assert torch.equal(torch.get_rng_state(), state)
    after = trainer.student.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
