"""What a bench recipe may say, and the trainings that it comes to."""

from pathlib import Path
from typing import Any

import pytest

from sskd.bench.grid import tasks_of
from sskd.bench.labels import Labels
from sskd.bench.recipe import load_recipe, packaged
from sskd.bench.task import Task
from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.plan import Optim
from sskd.models.zoo import PUBLISHED
from sskd.train.optim import learning_rate
from tests.benches import BASE, write_recipe


def test_recipes_of_the_package() -> None:
    counts = {name: len(tasks_of(load_recipe(name), Path("out"))) for name in packaged()}
    # Teachers, then pairs x methods x seeds; fsp and kdsvd left out where channels differ.
    assert counts["paper-similar"] == 4 + 5 * 25 * 5 - 2 * 5 and counts["paper-cross"] == 4 + 6 * 23 * 5
    for name in ("paper-similar", "paper-cross", "cpu-small"):
        recipe = load_recipe(name)
        missing = METHODS.keys() - {recipe.method_of(label) for label in recipe.methods}
        assert missing == ({"fsp", "kdsvd"} if name == "paper-cross" else set())
    pairs = [pair for name in ("paper-similar", "paper-cross") for pair in load_recipe(name).pairs]
    assert len({(pair.teacher, pair.student) for pair in pairs}) == 11
    assert {pair.teacher for pair in pairs} | {pair.student for pair in pairs} <= {*PUBLISHED.values()}
    assert load_recipe("paper-similar").seeds == (0, 1, 2, 3, 4)
    assert load_recipe("paper-cross").training["epochs"] == 240


def test_imagenet_recipe() -> None:
    tasks = tasks_of(load_recipe("imagenet-resnet34-resnet18"), Path("out"))
    assert [task.facts["label"] for task in tasks] == ["ce", "kd", "at", "sp", "cc", "crd", "sskd"]
    sskd = tasks[-1].arguments
    assert (sskd["teacher"], sskd["student"], sskd["options"]) == ("resnet34.tv_in1k", "resnet18", {"head_epochs": 30})
    optim = Optim(**sskd["optim"])
    assert (sskd["epochs"], sskd["batch_size"], optim.weight_decay) == (90, 256, 1e-4)
    rates = [learning_rate(optim, epoch / 90) for epoch in (0, 29.99, 30, 59.99, 60, 89.99)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_tasks(tmp_path: Path) -> None:
    pair = {"teacher": "wrn_16_2", "student": "cifar_resnet8", "options": {"sskd": {"ss": 3}}, "skip": ["plain"]}
    methods = {"kd": {}, "sskd": {"head_epochs": 1}, "plain": {"method": "ce"}}
    path = write_recipe(
        tmp_path, pairs=[pair, BASE["pairs"][0]], methods=methods, seeds=[3, 5], fractions=[0.5, 1], teacher_seed=9
    )
    tasks = tasks_of(load_recipe(str(path)), Path("out"))
    assert [task.name for task in tasks[:2]] == ["cifar_wrn_16_2-seed9", "cifar_resnet8-seed9"]
    assert len(tasks) == 2 + 2 * 2 * (2 + 3)
    by_name = {task.name: task for task in tasks}
    cell = by_name["cifar_wrn_16_2--cifar_resnet8/sskd-fraction0.5-seed5"]
    assert cell.teacher == "cifar_wrn_16_2-seed9"
    assert cell.folder == Path("out/cells/cifar_wrn_16_2--cifar_resnet8/sskd-fraction0.5-seed5")
    assert cell.arguments["options"] == {"head_epochs": 1, "ss": 3}
    assert cell.arguments["teacher"] == "out/teachers/cifar_wrn_16_2-seed9"
    assert (cell.arguments["fraction"], cell.arguments["seed"], cell.arguments["method"]) == (0.5, 5, "sskd")
    assert by_name["cifar_resnet8--cifar_resnet8/plain-seed3"].arguments["method"] == "ce"
    assert {task.arguments["cache"] for task in tasks if task.kind == "student"} == {"out/cache"}
    assert Task.parsed(cell.text()) == cell


def test_cells_of_few_and_wrong_labels(tmp_path: Path) -> None:
    """A cell's name says what it is, and nothing where that is as usual."""
    changed: dict[str, Any] = {"methods": {"kd": {}}, "fractions": [0.25, 1], "noises": [0, 0.3, "pair-flip 0.1"]}
    recipe = load_recipe(str(write_recipe(tmp_path, **changed, same_steps=True, teachers_see="same")))
    by_name = {task.name: task for task in tasks_of(recipe, Path("out"))}
    pair = "cifar_resnet8--cifar_resnet8/"
    assert [name.removeprefix(pair) for name in by_name if pair in name] == [
        "kd-fraction0.25-same-steps-teacher-same-seed0",
        "kd-fraction0.25-noise0.3-same-steps-teacher-same-seed0",
        "kd-fraction0.25-pair-flip0.1-same-steps-teacher-same-seed0",
        "kd-seed0",
        "kd-noise0.3-teacher-same-seed0",
        "kd-pair-flip0.1-teacher-same-seed0",
    ]
    cell = by_name[f"{pair}kd-fraction0.25-pair-flip0.1-same-steps-teacher-same-seed0"]
    assert (cell.arguments["epochs"], cell.arguments["evaluate_every"], cell.arguments["fraction"]) == (8, 4, 0.25)
    assert (cell.arguments["noise"], cell.arguments["noise_kind"]) == (0.1, "pair-flip")
    assert (cell.arguments["teacher_data"], cell.arguments["teacher_labels"]) == ("subset", "noisy")
    assert cell.facts["teacher"] == "cifar_resnet8" and cell.facts["teacher_saw"] == "same"
    taught = by_name[cell.teacher or ""]
    assert taught.name == "cifar_resnet8-fraction0.25-pair-flip0.1-same-steps-teacher-same-seed0"
    assert str(taught.folder) == cell.arguments["teacher"] and taught.arguments["fraction"] == 0.25
    plain = by_name[f"{pair}kd-seed0"]
    assert not {"noise", "noise_kind", "per_class", "evaluate_every", "teacher_data"} & plain.arguments.keys()
    assert Labels.of("4 per class", 0, False, "all").suffix == "-4-per-class"


def test_a_teacher_that_is_there_is_not_trained(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, teachers={"resnet8": "some/run"})  # as the literature spells it
    tasks = tasks_of(load_recipe(str(path)), Path("out"))
    assert {task.kind for task in tasks} == {"student"}
    assert tasks[0].arguments["teacher"] == "some/run" and tasks[0].teacher is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pears": []}, "no key of the bench recipe tiny named 'pears'. Did you mean 'pairs'"),
        ({"data": None}, "has no data. Name a data set"),
        ({"data": [1, 2]}, r"the bench recipe tiny, data: expected text; got \[1, 2\]"),
        ({"about": [1]}, r"the bench recipe tiny, about: expected text; got \[1\]"),
        ({"methods": None}, "has no methods"),
        ({"pairs": []}, "has no pairs"),
        (
            {"pairs": [{"teacher": "cifar_resnet8"}]},
            r"pairs\[0\]: student is missing; got {.teacher",
        ),
        ({"pairs": [{**BASE["pairs"][0], "teacher": 3}]}, r"pairs\[0\]\.teacher: expected text; got 3"),
        ({"pairs": [{"teacher": "cifar_resnet8", "student": "cifar_resnet9"}]}, "cifar_resnet9"),
        ({"pairs": [{**BASE["pairs"][0], "option": {}}]}, r"tiny, pairs\[0\] named 'option'. Did you mean 'options'"),
        ({"pairs": [{**BASE["pairs"][0], "skip": ["ab"]}]}, "method label of the pair"),
        ({"pairs": [{**BASE["pairs"][0], "skip": ["kd", "sskd"]}]}, "skips all methods"),
        ({"pairs": [{**BASE["pairs"][0], "options": {"kd": 3}}]}, "expected names with values; got {'kd': 3}"),
        ({"pairs": {"a": 1}}, "the bench recipe tiny, pairs: expected a list"),
        ({"methods": {"sskdd": {}}}, "no method named 'sskdd'. Did you mean 'sskd'"),
        ({"methods": {"sskd": {"headepochs": 1}}}, "Did you mean 'head_epochs'"),
        ({"methods": {"kd": {"temperature": "hot"}}}, "temperature of kd takes a number"),
        ({"methods": ["kd"]}, "the bench recipe tiny, methods: expected names with values"),
        ({"methods": {"ce": 3}}, r"the bench recipe tiny, methods\[...\]: expected names with values; got {'ce': 3}"),
        ({"methods": {3: {}}}, "the bench recipe tiny, methods: names must be text"),
        ({"training": {"epoch": 3}}, "no key of the bench recipe tiny, training named 'epoch'. Did you mean 'epochs'"),
        ({"training": {"seed": 3}}, "seed does not stand in the bench recipe tiny, training: say seeds"),
        ({"training": {"batch_size": 0}}, "the bench recipe tiny, training: batch_size must be at least 1"),
        ({"training": {"epochs": 0}}, "the bench recipe tiny, training: epochs must be at least 1"),
        ({"training": {"epochs": 1.5}}, "training, epochs: expected a whole number; got 1.5"),
        ({"training": {"epochs": None}}, "training, epochs: expected a whole number; got None"),
        ({"training": {"epochs": "many"}}, "training, epochs: expected a whole number; got 'many'"),
        ({"training": {"threads": 100_000_000}}, "threads must be at most"),
        ({"training": {"optim": 3}}, "training, optim: expected names with values; got 3"),
        ({"training": {"optim": {"rate": 1}}}, "training, optim named 'rate'"),
        ({"teacher_training": {"optim": {"momentum": -1}}}, "momentum must be from 0 to below 1; got -1"),
        (
            {"teachers": {"resnet20": "x"}},
            "weights for cifar_resnet20, no pair's teacher: those are cifar_resnet8",
        ),
        (
            {"teachers": {"cifar_resnet8": ""}},
            "tiny gives no weights for cifar_resnet8. Name a run, a folder or a file",
        ),
        (
            {"training": {"device": "tpu"}},
            "tiny, training: The device 'tpu' is not one that training runs on: auto, cpu",
        ),
        ({"teacher_training": {"device": "gpu"}}, "teacher_training: The device 'gpu' is not one"),
        ({"teachers": {"cifar_resnet8": 3}}, "expected text; got {'cifar_resnet8': 3}"),
        ({"reading": {"labels": "x"}}, "reading named 'labels'. Did you mean 'label'"),
        ({"reading": {"test_share": 7}}, "reading.test_share is a share between 0 and 1; got 7"),
        ({"seeds": [0, "one"]}, r"the bench recipe tiny, seeds\[1\]: expected a whole number; got 'one'"),
        ({"seeds": [True]}, "expected a whole number; got True"),
        ({"seeds": []}, "seeds must be one or more; the recipe tiny has none"),
        ({"noises": []}, "noises must be one or more"),
        ({"fractions": [0]}, "above 0 and up to 1, or numbers of each class, such as '4 per class'; got 0"),
        ({"fractions": ["0 per class"]}, "fractions are shares"),
        ({"fractions": ["4 per class"], "same_steps": True}, "same_steps is for shares of the images"),
        ({"noises": [1]}, "noises are shares of wrong labels, from 0 to below 1, symmetric or such as"),
        ({"noises": ["flip 0.2"]}, "got 'flip 0.2'"),
        ({"training": {"noise": 0.3}}, r"noise does not stand in the bench recipe tiny, training: .*noises: \[0.3\]"),
        ({"teachers_see": "none"}, "teachers_see: expected one of all, same; got 'none'"),
        ({"teachers_see": "same", "noises": [0.1], "teachers": {"cifar_resnet8": "x"}}, "Leave one of the two out"),
        ({"seeds": 3}, "the bench recipe tiny, seeds: expected a list; got 3"),
    ],
)
def test_refused_recipes(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(str(write_recipe(tmp_path, **changed)))


@pytest.mark.parametrize(
    "changed",
    [
        {"seeds": [0, 0]},
        {"fractions": [0.5, 0.5]},
        {"noises": [0.2, 0.2]},
        {"pairs": [BASE["pairs"][0]] * 2},
        {"methods": {"kd a": {"method": "kd"}, "kd-a": {"method": "kd"}}},
    ],
)
def test_trainings_that_would_share_a_folder(changed: dict[str, Any], tmp_path: Path) -> None:
    recipe = load_recipe(str(write_recipe(tmp_path, **changed)))
    with pytest.raises(UserError, match=r"would share the folder .*cells/cifar_resnet8--cifar_resnet8/kd"):
        tasks_of(recipe, Path("out"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- kd\n", "is no bench recipe: expected keys"),
        ("a: [\n", "is not YAML"),
        ("a: 2026-99-99\n", "is not YAML"),
        ("[" * 5000, "is nested too deeply"),
        ("", "is no bench recipe"),
    ],
)
def test_files_that_are_no_recipes(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_recipe(str(path))


def test_unknown_recipe() -> None:
    with pytest.raises(UserError, match=r"'cpu-smal'\. Did you mean 'cpu-small'"):
        load_recipe("cpu-smal")
