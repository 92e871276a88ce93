"""What the methods make of a pair and of their options."""

from typing import Any, cast

import pytest
import torch

from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.options import check_options, options_of
from sskd.methods.plan import Optim, Pair, Plan
from sskd.methods.sskd import Similarity, Transformed
from sskd.methods.sskd_loss import PRESETS
from tests.trainers import CLASSES, info


def pair_of(pooled: tuple[int, ...] | None = (64,)) -> Pair:
    shapes = {"logits": (CLASSES,)} | ({"pooled": pooled} if pooled is not None else {})
    return Pair(shapes, shapes, info())


def weights_of(plan: Plan) -> dict[str, float]:
    return {name: weight for name, (weight, _) in plan.stages[-1].loss.items()}


def test_weights() -> None:
    def sskd_weights(**options: Any) -> dict[str, float]:
        return weights_of(METHODS["sskd"](pair_of(), epochs=3, optim=Optim(), **options))

    assert sskd_weights() == {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0}
    assert sskd_weights(preset="arxiv") == {"ce": 0.1, "kd": 0.9, "tf": 10.0, "ss": 2.7}
    assert sskd_weights(preset="supplement", tf=0, kd=0.5) == {"ce": 0.1, "kd": 0.5, "tf": 0, "ss": 3.0}
    assert PRESETS["supplement"] == {"ce": 0.1, "kd": 0.9, "tf": 5.0, "ss": 3.0}
    assert weights_of(METHODS["ce"](pair_of(), epochs=3, optim=Optim())) == {"ce": 1.0}
    assert weights_of(METHODS["kd"](pair_of(), epochs=3, optim=Optim(), kd_weight=9.0)) == {"ce": 0.1, "kd": 9.0}


def test_stages() -> None:
    optim = Optim(lr=0.3)
    head, student = METHODS["sskd"](pair_of(), epochs=7, optim=optim, head_epochs=5, ratio_tf=0.5).stages
    assert (head.shared, head.epochs, head.optim.lr, head.optim.milestones) == (True, 5, 0.05, (0.5, 0.75))
    assert (student.shared, student.epochs, student.optim) == (False, 7, optim)
    tf, ss = cast(Transformed, student.loss["tf"][1]), cast(Similarity, student.loss["ss"][1])
    assert (tf.temperature, tf.ratio, ss.temperature, ss.ratio) == (4.0, 0.5, 0.5, 0.75)


def test_teacher_head_is_the_same_for_every_student() -> None:
    torch.manual_seed(1)
    first = METHODS["sskd"](pair_of(), epochs=1, optim=Optim()).modules["teacher_head"]
    torch.manual_seed(2)
    second = METHODS["sskd"](pair_of(), epochs=1, optim=Optim()).modules["teacher_head"]
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("method", "pair", "options", "message"),
    [
        ("kd", Pair(pair_of().student, None, info()), {}, "--teacher"),
        ("sskd", Pair(pair_of().student, None, info()), {}, "--teacher"),
        ("sskd", pair_of(None), {}, "linear"),
        ("sskd", pair_of((8, 2, 2)), {}, "linear"),
        ("sskd", pair_of(), {"preset": "relased"}, "released, arxiv, supplement"),
        ("sskd", pair_of(), {"ratio_tf": 1.5}, "ratio_tf"),
        ("sskd", pair_of(), {"ratio_ss": -0.1}, "ratio_ss"),
        ("sskd", pair_of(), {"ratio_ss": float("nan")}, "ratio_ss"),
    ],
)
def test_refused_plans(method: str, pair: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        METHODS[method](pair, epochs=1, optim=Optim(), **options)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("ce", {"temperature": 4}, "has no options"),
        ("kd", {"temprature": 4}, "Did you mean 'temperature'"),
        ("kd", {"temperature": "4"}, "takes a number"),
        ("kd", {"temperature": True}, "takes a number"),
        ("kd", {"standardised": 1}, "true or false"),
        ("sskd", {"tf": "much"}, "takes a number"),
        ("sskd", {"epochs": 3}, "epochs"),
    ],
)
def test_refused_options(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_options(METHODS[method], method, options)


def test_accepted_options() -> None:
    check_options(METHODS["ce"], "ce", {})
    check_options(METHODS["kd"], "kd", {"temperature": 2, "standardised": True})
    check_options(METHODS["sskd"], "sskd", {"tf": 1, "ss": 0.5, "preset": "arxiv", "head_epochs": 3})
    assert options_of(METHODS["kd"]) == {
        "ce_weight": 0.1,
        "kd_weight": 0.9,
        "temperature": 4.0,
        "standardised": False,
    }
