"""Every method goes on from each of its checkpoints, and ends bitwise equal to a run that was never stopped."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sskd.methods import METHODS
from sskd.methods.plan import Plan
from sskd.train.loop import Schedule
from tests.test_contract import unclocked
from tests.trainers import ASKING, Kept, build, equal

SHORT: dict[str, dict[str, Any]] = {
    "fitnet": {"init_epochs": 2},
    "ab": {"init_epochs": 2},
    "fsp": {"init_epochs": 2},
    "ft": {"init_epochs": 2},
    "hsakd": {"branch_epochs": 2},
    "sskd": {"head_epochs": 2},
}
METHODS_SHORT: dict[str, Callable[..., Plan]] = {
    **{name: partial(method, **SHORT.get(name, {})) for name, method in METHODS.items()},
    "crd with a queue": partial(METHODS["crd"], queue=8),
    "kd, standardised": partial(METHODS["kd"], standardised=True),
    "sskd, all transformations": partial(METHODS["sskd"], transformations="all", **SHORT["sskd"]),
    "sskd, drawn answers": partial(ASKING["sskd, drawn answers"], **SHORT["sskd"]),
}


@pytest.mark.parametrize("name", METHODS_SHORT)
def test_a_method_goes_on_from_each_checkpoint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sskd.train.loop.INTERVAL", -1.0)  # look at every step
    method, schedule, whole = METHODS_SHORT[name], Schedule(6, 0, checkpoint_every=0.0), Kept()
    build(method, kept=whole, epochs=2, schedule=schedule).fit()
    stages = 2 if name.partition(",")[0] in SHORT else 1
    assert len(whole.saved) == stages * 2 * 2, "in the middle and at the end of two epochs of each stage"
    for state in whole.saved[:-1]:
        rest = Kept(copy.deepcopy(state))
        build(method, kept=rest, epochs=2, schedule=schedule).fit()
        modules = rest.saved[-1]["modules"]
        assert modules.keys() == whole.saved[-1]["modules"].keys()
        for part, values in whole.saved[-1]["modules"].items():
            assert equal(modules[part], values), part
        missing = len(rest.records)
        assert missing and [unclocked(one) for one in rest.records] == [
            unclocked(one) for one in whole.records[-missing:]
        ]
