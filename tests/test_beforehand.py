"""What is seen of a grid before its first teacher is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sskd.bench.grid import tasks_of
from sskd.bench.recipe import load_recipe
from sskd.bench.run import run_tasks
from sskd.bench.task import Outcome, Task
from sskd.errors import UserError
from tests.benches import write_recipe


class Noting:
    """Trains nothing; takes note of what it was given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        self.given = [task.name for task in tasks]
        yield None


def ran(recipe: Path, out: Path) -> tuple[dict[str, str], list[str]]:
    """What failed, and what was given to be trained."""
    engine = Noting()
    return run_tasks(tasks_of(load_recipe(str(recipe)), out), engine, lambda _: None), engine.given


def test_options_out_of_range_cost_no_teacher(few: Path, tmp_path: Path) -> None:
    methods = {"kd": {"temperature": -1}, "sskd": {"transformations": ["colour_dropping"]}}
    failed, given = ran(write_recipe(tmp_path, data=str(few), methods=methods, seeds=[0, 1]), tmp_path / "out")
    pair = "cifar_resnet8--cifar_resnet8/"
    assert {*failed} == {f"{pair}{name}" for name in ("kd-seed0", "kd-seed1", "sskd-seed0", "sskd-seed1")} | {
        "cifar_resnet8-seed0"
    }
    assert "temperature must be above 0; got -1" in failed[f"{pair}kd-seed1"]
    assert "colour_dropping would do nothing to images of 1 channel" in failed[f"{pair}sskd-seed0"]
    assert failed["cifar_resnet8-seed0"].startswith("none of its students can be trained: temperature")
    assert given == []


def test_the_others_are_trained(few: Path, tmp_path: Path) -> None:
    methods = {"ce": {}, "kd": {"temperature": -1}}
    recipe, out = write_recipe(tmp_path, data=str(few), methods=methods), tmp_path / "out"
    failed, given = ran(recipe, out)
    assert [*failed] == ["cifar_resnet8--cifar_resnet8/kd-seed0"]
    assert given == ["cifar_resnet8-seed0", "cifar_resnet8--cifar_resnet8/ce-seed0"]


def test_taps_that_no_network_has(few: Path, tmp_path: Path) -> None:
    pair = {"teacher": "cifar_resnet8", "student": "cifar_resnet8", "teacher_taps": {"own": "no.such.module"}}
    failed, given = ran(write_recipe(tmp_path, data=str(few), pairs=[pair]), tmp_path / "out")
    assert len(failed) == 3 and given == []
    assert "no.such.module" in failed["cifar_resnet8-seed0"]


def test_where_no_teacher_is_to_be_trained_the_student_says_it(few: Path, tmp_path: Path) -> None:
    methods = {"kd": {"temperature": -1}}
    (tmp_path / "run").mkdir()
    given = {"cifar_resnet8": str(tmp_path / "run")}
    recipe = write_recipe(tmp_path, data=str(few), methods=methods, teachers=given)
    assert ran(recipe, tmp_path / "out") == ({}, ["cifar_resnet8--cifar_resnet8/kd-seed0"])


def test_pairs_of_one_student_are_tried_each_with_its_own_teacher(few: Path, tmp_path: Path) -> None:
    pairs = [{"teacher": teacher, "student": "cifar_resnet8"} for teacher in ("cifar_resnet8x4", "cifar_resnet20")]
    failed, given = ran(write_recipe(tmp_path, data=str(few), pairs=pairs, methods={"fsp": {}}), tmp_path / "out")
    assert {*failed} == {"cifar_resnet8x4-seed0", "cifar_resnet8x4--cifar_resnet8/fsp-seed0"}
    assert given == ["cifar_resnet20-seed0", "cifar_resnet20--cifar_resnet8/fsp-seed0"]


@pytest.mark.parametrize("place", ["some/run", "teacher.pth", "local-dir:nowhere", "resnet_of_nobody"])
def test_weights_that_are_missing_are_refused_before_anything_runs(place: str, few: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, data=str(few), teachers={"cifar_resnet8": place})
    with pytest.raises(UserError, match=f"There are no weights at {place}, which the recipe gives for cifar_resnet8"):
        ran(recipe, tmp_path / "out")


@pytest.mark.parametrize("place", ["hf-hub:some/network", "torchvision:resnet18", "resnet18.a1_in1k", "mine:net"])
def test_weights_at_an_address_are_not_looked_for_on_the_disk(place: str, few: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, data=str(few), methods={"kd": {}}, teachers={"cifar_resnet8": place})
    assert ran(recipe, tmp_path / "out") == ({}, ["cifar_resnet8--cifar_resnet8/kd-seed0"])


def test_a_recipe_says_of_which_network_its_weights_files_are(tmp_path: Path) -> None:
    tasks = tasks_of(load_recipe(str(write_recipe(tmp_path, teachers={"cifar_resnet8": "a.pth"}))), tmp_path)
    assert {(task.arguments["teacher"], task.arguments["teacher_architecture"]) for task in tasks} == {
        ("a.pth", "cifar_resnet8")
    }
