"""What is seen of a grid before its first teacher is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sskd.bench.grid import tasks_of
from sskd.bench.recipe import load_recipe
from sskd.bench.run import run_tasks
from sskd.bench.task import Outcome, Task
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
    recipe = write_recipe(tmp_path, data=str(few), methods=methods, teachers={"cifar_resnet8": "some/run"})
    assert ran(recipe, tmp_path / "out") == ({}, ["cifar_resnet8--cifar_resnet8/kd-seed0"])
