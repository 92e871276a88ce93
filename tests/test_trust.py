"""Files that name code or places: nothing is imported, fetched or loaded by them unless the user says so."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from sskd import api
from sskd.analyses.finished import load_finished
from sskd.analyses.probe import probe
from sskd.bench.grid import tasks_of
from sskd.bench.recipe import Duo, Recipe
from sskd.errors import UserError
from sskd.export.onnx import export
from sskd.jobs.job import restored
from sskd.jobs.predict import predictions
from sskd.models.build import build
from sskd.models.checkpoints import save_network
from sskd.models.load import Brought, Facts, load_folder, load_network
from tests.conftest import TRAINING, Cli
from tests.test_checkpoints import NAMES, SCALE, logits, make

FACTS = Facts(NAMES, 3, SCALE)
MINE = """
from pathlib import Path
from torch import nn
Path("imported").touch()
def body(channels):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
class Own(nn.Module):
    def __init__(self, name, classes, channels):
        super().__init__()
        self.name = name
        linear = nn.Linear(8, classes)
        setattr(self, name, body(channels) if name == "backbone" else nn.Sequential(body(channels), linear))
        self.head = linear if name == "backbone" else nn.Identity()
    def forward(self, images):
        return self.head(getattr(self, self.name)(images))
class Shared(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.features, self.fc = body(channels), nn.Linear(8, classes)
        self.layers = nn.Sequential(self.features, self.fc)
    def forward(self, images):
        return self.layers(images)
class Probabilities(nn.Sequential):
    mean, std = [0.5], [0.25]
def backbone(num_classes, in_chans): return Own("backbone", num_classes, in_chans)
def module(num_classes, in_chans): return Own("module", num_classes, in_chans)
def model(num_classes, in_chans): return Own("model", num_classes, in_chans)
def compiled(num_classes, in_chans): return Own("_orig_mod", num_classes, in_chans)
def shared(num_classes, in_chans): return Shared(num_classes, in_chans)
def ready(): return Probabilities(body(1), nn.Linear(8, 3), nn.Softmax(1))
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module in the working folder, which leaves a file behind when it is imported."""
    name = f"mine_{abs(hash(request.node.name)) % 10**8}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def imported() -> bool:
    """Whether the module was imported since the last time that this was asked."""
    there = Path("imported").exists()
    Path("imported").unlink(missing_ok=True)
    return there


@pytest.mark.parametrize("function", ["backbone", "module", "model", "compiled", "shared"])
def test_an_own_module_comes_back_whatever_its_parts_are_called(function: str, own_code: str, tmp_path: Path) -> None:
    name = f"{own_code}:{function}"
    network = make(name)
    save_network(network, network.backbone.state_dict(), tmp_path / "student", (3, 32, 32))
    loaded = load_folder(tmp_path / "student", trust_code=True).eval()
    assert torch.equal(logits(loaded), logits(network)) and loaded.weights_hash() == network.weights_hash()
    file = tmp_path / "student" / "config.json"
    config = json.loads(file.read_text())
    assert config.pop("written_by").startswith("sskd ")
    file.write_text(json.dumps(config))  # as the last release wrote it
    assert torch.equal(logits(load_folder(tmp_path / "student", name).eval()), logits(network))


def test_a_folder_runs_no_code_unless_it_is_named_or_trusted(own_code: str, tmp_path: Path) -> None:
    name = f"{own_code}:backbone"
    network = make(name)
    save_network(network, network.backbone.state_dict(), tmp_path / "student", (3, 32, 32))
    assert imported()
    del sys.modules[own_code]
    for brought in (Brought("student"), Brought("local-dir:student"), Brought("student", "cifar_resnet8")):
        with pytest.raises(UserError) as caught:
            load_network(brought, FACTS)
        message = str(caught.value)
        assert f"config.json names {name}: reading it would import and run backbone of the module {own_code}" in message
        assert "--trust_code true" in message and f"evaluate, probe: --architecture {name}, distill: --tea" in message
    assert not imported()
    load_network(Brought("student", name), FACTS)
    assert imported()
    assert load_network(Brought("student"), FACTS, trust_code=True).architecture == name


def test_a_callable_that_is_no_network_is_not_even_tried(tmp_path: Path) -> None:
    network = make()
    save_network(network, network.backbone.state_dict(), tmp_path, (3, 32, 32))
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for architecture, message in (
        ("os:system", "would import and run system of the module os"),
        ("http://somewhere/x:y", "names http://somewhere/x:y"),
        ("hf-hub:someone/something", "gives an address as its architecture"),
        ("local-dir:elsewhere", "gives an address as its architecture"),
        ("module:Net", "a module that was handed over in Python"),
    ):
        file.write_text(json.dumps(config | {"architecture": architecture, "model_args": {}}))
        with pytest.raises(UserError, match=message):
            load_folder(tmp_path)
        with pytest.raises(UserError, match=message):
            build(f"local-dir:{tmp_path}", 3, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"pretrained": True},
        {"pretrained_cfg": "x"},
        {"pretrained_strict": False},
        {"pretrained_cfg_overlay": "x"},
        {"checkpoint_path": "evil.pth"},
        {"features_only": True},
        {"feature_cls": "x"},
        {"cache_dir": "/"},
        {"pruned": True},
        {"size": 8},
    ],
)
def test_what_a_folder_says_shapes_a_network_and_nothing_else(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make("test_resnet")
    save_network(network, network.backbone.state_dict(), tmp_path, (3, 32, 32))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": arguments}))
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    for read in (lambda: load_folder(tmp_path), lambda: build(f"local-dir:{tmp_path}", 3, 3)):
        with pytest.raises(UserError, match=f"model_args has {next(iter(arguments))}, which test_resnet does not take"):
            read()


def test_where_a_folder_says_that_weights_are_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make("test_resnet")
    save_network(network, network.backbone.state_dict(), tmp_path, (3, 32, 32))
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    elsewhere = {"url": "http://127.0.0.1:9/x.pth", "file": "evil.pth", "hf_hub_id": "a/b", "custom_load": True}
    config["pretrained_cfg"] |= elsewhere | {"source": "url", "hf_hub_filename": "x", "state_dict": {}}
    file.write_text(json.dumps(config))
    asked: list[Any] = []
    made = timm.create_model

    def created(*words: Any, **arguments: Any) -> Any:
        asked.append((words, arguments))
        return made(*words, **arguments)

    monkeypatch.setattr(timm, "create_model", created)
    assert torch.equal(logits(load_folder(tmp_path).eval()), logits(network))
    build(f"local-dir:{tmp_path}", 3, 3)
    assert asked == [(("test_resnet",), {"in_chans": 3, "global_pool": "avg", "num_classes": 3})] * 2


# run configs


def edited(change: Callable[[dict[str, Any]], object], run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    config = json.loads((to / "config.json").read_text())
    change(config["arguments"])
    (to / "config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda a: a.update(method="evil:plan"), "evil:plan"),
        (lambda a: a.update(network="os:system"), "os:system"),
        (lambda a: a.update(options={"pretext": "evil:Pretext"}), "evil:Pretext"),
        (lambda a: a.update(teacher={"place": "x.pth", "architecture": "evil:net"}), "evil:net"),
        (lambda a: a.update(teacher={"place": "evil:net"}), "evil:net"),
        (lambda a: a.update(method="evil:plan", trust_code=True), "evil:plan"),
    ],
)
def test_a_run_names_no_code_that_an_analysis_imports(
    change: Callable[[dict[str, Any]], object], named: str, teacher: Path, tmp_path: Path
) -> None:
    run = edited(change, teacher, tmp_path / "run")
    with pytest.raises(
        UserError, match=rf"run/config\.json names {named}: reading it would import .*--trust_code true"
    ):
        load_finished(str(run))
    with pytest.raises(UserError, match=r"trust_code=True\)\.$"):  # no option of an analysis names code
        load_finished(str(run))


def test_options_of_a_run_are_checked(teacher: Path, tmp_path: Path) -> None:
    run = edited(lambda a: a.update(method="sskd", options={"pretext": ["os:system"]}), teacher, tmp_path / "run")
    with pytest.raises(UserError, match=r"The option pretext of sskd takes a name; got \['os:system'\]"):
        load_finished(str(run))


@pytest.mark.parametrize(
    "function",
    [
        lambda: api.teaching("digits", "cifar_resnet8", trust_code="false"),  # type: ignore[arg-type]
        lambda: api.distillation("cifar_resnet8", "digits", trust_code="false"),  # type: ignore[arg-type]
        lambda: api.evaluate("x", "digits", trust_code="false"),  # type: ignore[arg-type]
        lambda: predictions("x", ["y"], trust_code="false"),  # type: ignore[arg-type]
        lambda: export("x", "y.onnx", trust_code="false"),  # type: ignore[arg-type]
        lambda: probe("x", "digits", trust_code="false"),  # type: ignore[arg-type]
        lambda: load_finished("x", trust_code="false"),  # type: ignore[arg-type]
    ],
)
def test_trust_is_true_or_false(function: Callable[[], object]) -> None:
    """The text "false" would count as true."""
    with pytest.raises(UserError, match="trust_code must be true or false; got 'false'"):
        function()


def test_a_run_does_not_trust_itself(teacher: Path, tmp_path: Path) -> None:
    arguments = json.loads((teacher / "config.json").read_text())["arguments"]
    assert "trust_code" not in json.dumps(arguments)
    assert restored(tmp_path, {**arguments, "trust_code": True}).trust_code is False


def test_a_recipe_names_the_code_of_its_own_teachers(tmp_path: Path) -> None:
    pairs = (Duo("mine:big", "cifar_resnet8"), Duo("cifar_resnet20", "cifar_resnet8"))
    tasks = tasks_of(Recipe("r", "digits", pairs, {"kd": {}}), tmp_path)
    assert [task.arguments.get("teacher_architecture") for task in tasks] == [None, None, "mine:big", None]


# whole commands


def test_own_code_is_trained_read_and_taught_from(own_code: str, few: Path, sskd: Cli, tmp_path: Path) -> None:
    name, once = f"{own_code}:backbone", ("--epochs", "1", "--validation", "0", *TRAINING)
    words = ("teacher", "--data", few, "--model", name, "--out", "run", *once)
    taught = sskd(*words)
    assert taught.code == 0 and f"{name} is code of your own: commands that read the finished run" in taught.out
    assert sskd(*words).code == 0, "one's own command is continued without a word"
    refused = sskd("evaluate", "--network", "run", "--data", few)
    assert refused.code == 2 and "--trust_code true" in refused.err
    evaluate = ("evaluate", "--network", "run", "--data", few)
    outputs = {sskd(*evaluate, *how).out for how in (("--architecture", name), ("--trust_code", "true"))}
    assert len(outputs) == 1 and "top1" in outputs.pop()
    card = (tmp_path / "run" / "student" / "README.md").read_text()
    assert "--images IMAGES --trust_code true`" in card and 'load_folder(Path("FOLDER"), trust_code=True)' in card
    distil = (
        "distill",
        "--data",
        few,
        "--student",
        "cifar_resnet8",
        "--method",
        "kd",
        "--teacher",
        "run",
        "--out",
        "kd",
    )
    assert sskd(*distil, *once).code == 2
    done = sskd(*distil, "--teacher_architecture", name, *once)
    assert done.code == 0, done.err
    assert sskd(*distil, "--trust_code", "true", *once).code == 0, "another way to trust the same teacher"


def test_a_ready_module_is_kept_and_its_probabilities_are_warned_about(own_code: str, few: Path, sskd: Cli) -> None:
    kept = sskd("teacher", "--data", few, "--model", f"{own_code}:ready", "--epochs", "0", "--out", "kept")
    assert kept.code == 0, kept.err
    assert f"WARNING: {own_code}:ready gives probabilities (its outputs sum to 1), not logits" in kept.out
    assert f"those with which {own_code}:ready returns its network" in kept.out
    network = load_folder(Path("kept/student"), trust_code=True)
    assert network.normalisation.mean == (0.5,) and network.class_names == ("0", "1", "2")
    again = sskd("teacher", "--data", few, "--model", "cifar_resnet8", "--epochs", "0", "--out", "no")
    assert again.code == 2 and "or a --model that brings its own" in again.err
