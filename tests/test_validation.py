"""Values that come from files are checked by one function, which names the place, what was expected and what came."""

from typing import Any, Literal

import pytest

from sskd.bench.recipe import Duo
from sskd.errors import UserError
from sskd.optim import Optim
from sskd.reading import Reading
from sskd.settings import Training
from sskd.validation import convert


def test_right_values_become_typed_ones() -> None:
    made = convert({"epochs": 3, "optim": {"lr": 1}, "scale": [0.1, 1]}, Training, "a.yaml")
    assert (made.epochs, made.optim.lr, made.scale) == (3, 1.0, (0.1, 1.0))
    assert made.batch_size == Training().batch_size


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ({"epochs": None}, Training, r"a\.yaml, epochs: expected a whole number; got None\. Mend it\."),
        ({"epochs": 1.5}, Training, r"epochs: expected a whole number; got 1\.5"),
        ({"optim": 3}, Training, r"a\.yaml, optim: expected names with values; got 3"),
        ({"optim": {"lr": "x"}}, Training, r"optim\.lr: expected a number or nothing \(null\); got 'x'"),
        ({"optim": {"rate": 1}}, Training, r"no key of a\.yaml, optim named 'rate'"),
        ({"opt": 3}, Training, r"no key of a\.yaml named 'opt'\. Did you mean 'optim'"),
        ({"batch_size": 0}, Training, r"a\.yaml: batch_size must be at least 1; got 0"),
        ({"crop": "x"}, Training, r"crop: expected one of auto, padded, resized; got 'x'"),
        ({"classes": [1]}, Reading, r"classes\[0\]: expected text; got 1"),
        ([1], Training, r"a\.yaml: expected names with values; got \[1\]"),
        ({3: 1}, dict[str, int], r"a\.yaml: names must be text: expected text; got {3: 1}"),
        ({"x": "y"}, dict[str, int], r"a\.yaml\[\.\.\.\]: expected a whole number; got {'x': 'y'}"),
        ([{"rate": 1}], tuple[Optim, ...], r"no key of a\.yaml\[0\] named 'rate'"),
        ({"rate": 1}, tuple[Optim, ...], r"a\.yaml: expected a list; got {'rate': 1}"),
        ({"teacher": "x"}, Duo, r"a\.yaml: student is missing; got {'teacher': 'x'}"),
        ("int4", Literal["fp32", "bf16"], r"a\.yaml: expected one of fp32, bf16; got 'int4'"),
        (["x"], tuple[Literal["a", "b"], ...], r"a\.yaml\[0\]: expected one of a, b; got 'x'"),
        ({"k": "x"}, dict[str, Literal["a"]], r"a\.yaml\[\.\.\.\]: expected one of a; got"),
        ({"first": {"rate": 1}}, dict[str, Optim], r"no key of a\.yaml, first named 'rate'"),
        (None, dict[str, int], r"a\.yaml: expected names with values; got None"),
    ],
)
def test_wrong_values_are_named(value: Any, kind: type, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert(value, kind, "a.yaml", "Mend it.")


def test_keys_of_a_mapping_are_data() -> None:
    assert convert({"first": {"lr": 1}}, dict[str, Optim], "a.yaml") == {"first": Optim(lr=1.0)}


def test_arguments_are_named_without_a_place() -> None:
    for value, message in (
        ({"epochs": None}, "epochs: expected a whole number; got None."),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0."),
        ({"optim": {"rate": 1}}, "There is no key of optim named 'rate'."),
    ):
        with pytest.raises(UserError) as caught:
            convert(value, Training, "")
        assert str(caught.value).startswith(message)
