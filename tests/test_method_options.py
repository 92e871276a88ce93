"""Options of methods that users write, however they write them; and names that cannot be imported."""

import functools
import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.find import find_method
from sskd.methods.options import as_begun, check_options, complete, function_of, options_of
from sskd.methods.stages import Scaled
from sskd.views.find import pretext_of
from tests.trainers import info

MODULE = '''
"""Toys."""
from __future__ import annotations
import functools, math
from typing import TYPE_CHECKING
from torch import nn
from sskd.methods import METHODS
if TYPE_CHECKING:
    from sskd.methods.plan import Optim, Pair, Plan

def bare(pair, *, epochs, optim, head_epochs=60, ratio=0.5, name="x", levels=(1, 2)):
    return METHODS["ce"](pair, epochs=epochs, optim=optim)

def texts(p: Pair, /, alpha: float = 1.0, *, epochs: int, optim: Optim, beta: Nowhere = 2, gamma: int = 3) -> Plan:
    return METHODS["ce"](p, epochs=epochs, optim=optim)

def positional(pair, scale=2.0, /, *, epochs, optim): ...
def anything(pair, *, epochs, optim, weight: float = 1.0, **others): return {"weight": weight, **others}
def demanding(pair, *, epochs, optim, rate: float): ...
def odd(pair, *, epochs, optim, loss=nn.MSELoss(), clip=math.inf, base=nn.Linear, kinds={"a": 1}, sizes={1, 2}): ...
def pairs(pair, *, epochs, optim, box: tuple[float, str] = (1, "a"), table: dict[str, int] = {}, any: list[int] = ()):
    ...
short = lambda pair, epochs, optim, twice=2: METHODS["ce"](pair, epochs=epochs, optim=optim)
part = functools.partial(bare, ratio=0.1)

@functools.wraps(bare)
def wrapped(*args, **kwargs): return bare(*args, **kwargs)

class Factory:
    def __init__(self, pair, *, epochs, optim, width: int = 3): ...

class Callable:
    def __call__(self, pair, *, epochs, optim, depth: int = 4): ...
instance = Callable()

def no_epochs(pair, optim): ...
def no_pair(*, epochs, optim): ...
'''


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of methods on Python's path, with a name of its own."""
    name = f"toys_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"broken_{name}.py").write_text("import math\n\nmath.sqrt(-1)\n")
    (tmp_path / f"script_{name}.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / f"typo_{name}.py").write_text("def plan(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


OPTIONS: dict[str, dict[str, Any]] = {
    "bare": {"head_epochs": 60, "ratio": 0.5, "name": "x", "levels": (1, 2)},
    "texts": {"alpha": 1.0, "beta": 2, "gamma": 3},
    "positional": {},
    "anything": {"weight": 1.0},
    "demanding": {},
    "short": {"twice": 2},
    "part": {"head_epochs": 60, "ratio": 0.1, "name": "x", "levels": (1, 2)},
    "wrapped": {"head_epochs": 60, "ratio": 0.5, "name": "x", "levels": (1, 2)},
    "Factory": {"width": 3},
    "instance": {"depth": 4},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_however_they_are_written(toys: str, name: str) -> None:
    method = find_method(f"{toys}:{name}")
    assert options_of(method) == OPTIONS[name]
    assert complete(method, {}, 30) == OPTIONS[name]
    assert function_of(method).__module__ == toys


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bare", {"head_epochs": 2}),  # no type hints: the value is taken as it is
        ("bare", {"head_epochs": "many", "ratio": None, "name": [1], "levels": {"a": 1}}),
        ("texts", {"beta": "whatever", "alpha": 2}),  # an annotation that names nothing
        ("anything", {"weight": 2, "unheard_of": [1, "a"]}),
        ("demanding", {"rate": 0.5}),
        ("part", {"ratio": 0.2}),
        ("wrapped", {"ratio": 0.2}),
        ("Factory", {"width": 5}),
        ("instance", {"depth": 5}),
        ("pairs", {"box": [1, "b"], "table": {"a": 1}, "any": [1, 2]}),
    ],
)
def test_accepted(toys: str, name: str, options: dict[str, Any]) -> None:
    check_options(find_method(f"{toys}:{name}"), name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bare", {"head_epoch": 2}, "Did you mean 'head_epochs'"),
        ("bare", {"ratio": math.nan}, "takes a finite number; got nan"),
        ("bare", {"ratio": nn.ReLU()}, r"what a run's config.json can hold .* got ReLU\(\)"),
        ("bare", {"levels": [1, math.inf]}, "what a run's config.json can hold"),
        ("texts", {"alpha": "much"}, "takes a number; got 'much'"),
        ("texts", {"gamma": 1.5}, "takes a whole number; got 1.5"),
        ("texts", {"p": 1}, "no option of texts named 'p'"),
        ("positional", {"scale": 1}, "The method positional has no options"),
        ("anything", {"weight": "much"}, "takes a number"),
        ("anything", {"epochs": 3}, "epochs is no option of the method anything"),
        ("demanding", {}, "The method demanding needs its option rate: --options.rate VALUE"),
        ("Factory", {"width": 1.5}, "takes a whole number"),
        ("instance", {"depth": "x"}, "takes a whole number"),
        ("pairs", {"box": [1.0, "b", 2]}, "takes a list of 2: a number, a name; got"),
        ("pairs", {"any": [1.5]}, "takes a list, each a whole number"),
    ],
)
def test_refused(toys: str, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_options(find_method(f"{toys}:{name}"), name, options)


def test_defaults_that_json_cannot_hold_stay_out_of_the_config(toys: str) -> None:
    assert complete(find_method(f"{toys}:odd"), {"clip": 3}, 30) == {"kinds": {"a": 1}, "clip": 3}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}:no_epochs", r"takes \(pair, optim\): .*'epochs'; a method is called as plan\(pair, epochs=\.\.\., optim"),
        ("{}:no_pair", "too many positional arguments"),
        ("os:system", "a method is called as plan"),
        ("builtins:dict", "has no signature that could be read|a method is called as plan"),
        ("{}:", "is no function, but a module"),
        ("{}:MODULE.x", "has no attribute 'MODULE'"),
        (":plan", "cannot be imported: ValueError: Empty module name"),
        ("broken_{}:plan", r"cannot be imported: ValueError: .*broken_toys_\d+\.py, line 3\)\. Say MODULE:FUNCTION"),
        ("script_{}:plan", r"cannot be imported: SystemExit: 3 \(.*script_toys_\d+\.py, line 2\)"),
        ("typo_{}:plan", r"cannot be imported: SyntaxError: invalid syntax \(typo_toys_\d+\.py, line 1\)"),
    ],
)
def test_names_that_are_no_methods(toys: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_method(name.format(toys))


def test_pretexts_that_cannot_be_imported(toys: str) -> None:
    with pytest.raises(UserError, match=r"The pretext broken_\w+:P cannot be imported: ValueError: .*line 3\)"):
        pretext_of(f"broken_{toys}:P", "rotation", 10, info())


def test_lengths_that_a_run_was_begun_with() -> None:
    """The config of a run tells them; what is given counts more, and other options are not taken from it."""
    begun = {"head_epochs": 60, "tf": 5.0}
    assert as_begun("sskd", METHODS["sskd"], {"ss": 3}, begun) == {"head_epochs": 60, "ss": 3}
    assert as_begun("sskd", METHODS["sskd"], {"head_epochs": 5}, begun) == {"head_epochs": 5}
    assert as_begun("sskd", METHODS["sskd"], {}, {}) == {}
    assert as_begun("one", METHODS["one"], {}, {"branches": 3}) == {"ramp_up": 0}, "an older run knew no ramp"
    assert as_begun("one", METHODS["one"], {}, {"ramp_up": 16}) == {"ramp_up": 16}
    partly = functools.partial(METHODS["sskd"], head_epochs=2)
    assert as_begun("sskd", partly, {}, begun) == {}
    assert complete(METHODS["sskd"], {}, 60)["head_epochs"] == Scaled(60).at(60) == 15
