"""Networks in folders of their own: what timm loads, what comes back, what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from sskd.errors import UserError
from sskd.models import build as building
from sskd.models.checkpoints import save_network
from sskd.models.load import Brought, Facts, load_folder, load_network
from sskd.models.network import Network
from sskd.models.normalisation import Normalisation
from tests.conftest import Cli
from tests.test_checkpoints import NAMES, SCALE, load, logits, make


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_mobilenet_v2", "cifar_vgg8", "resnet18"])
@pytest.mark.parametrize("channels", [1, 3])
def test_timm_loads_what_we_write(name: str, channels: int, tmp_path: Path) -> None:
    network, run = make(name, channels), tmp_path / "run"
    run.mkdir()
    # a head of the same run, which must not be taken for the network
    safetensors.torch.save_file({"0.weight": torch.zeros(2)}, run / "model.safetensors")
    save_network(network, network.backbone.state_dict(), run / "student", (channels, 32, 32))
    assert sorted(path.name for path in (run / "student").iterdir()) == ["config.json", "model.safetensors"]
    backbone: Any = timm.create_model(f"local-dir:{run / 'student'}", pretrained=True).eval()
    scale = network.normalisation
    config = backbone.pretrained_cfg
    assert (tuple(config["mean"]), tuple(config["std"])) == (scale.mean, scale.std)
    assert tuple(config["input_size"]) == (channels, 32, 32)
    again = Network(name, backbone, scale, NAMES).eval()
    assert torch.equal(logits(again, channels), logits(network, channels))


def test_timm_fine_tunes_what_we_write(tmp_path: Path) -> None:
    network = make()
    save_network(network, network.backbone.state_dict(), tmp_path / "student", (3, 32, 32))
    backbone = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True, num_classes=7).eval()
    assert logits(backbone).shape == (2, 7)
    ours = network.backbone.state_dict()
    same = {key for key, value in backbone.state_dict().items() if torch.equal(value, ours.get(key, torch.zeros(0)))}
    assert same == ours.keys() - {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_brings_classes_and_normalisation(channels: int, tmp_path: Path) -> None:
    network, folder = make(channels=channels), tmp_path / "student"
    save_network(network, network.backbone.state_dict(), folder, (channels, 32, 32))
    loaded = load_folder(folder).eval()
    assert (loaded.architecture, loaded.class_names) == ("cifar_resnet8", NAMES)
    assert loaded.normalisation == replace(network.normalisation, origin=f"{folder}/config.json")
    assert torch.equal(logits(loaded, channels), logits(network, channels))
    assert loaded.weights_hash() == network.weights_hash()


def test_the_given_state_is_written_not_the_last(tmp_path: Path) -> None:
    network, best = make(seed=0), make(seed=1)
    save_network(network, best.backbone.state_dict(), tmp_path, (3, 32, 32))
    assert torch.equal(logits(load_folder(tmp_path)), logits(best)) is False, "a fresh network is in train mode"
    assert torch.equal(logits(load_folder(tmp_path).eval()), logits(best))


def test_run_directory_folder_and_file_are_the_same_network(teacher: Path) -> None:
    names = ("0", "1", "2")
    paths = (teacher, teacher / "student", teacher / "student" / "model.safetensors")
    scale = Normalisation((0.5,), (0.2,), "the arguments")
    run, folder, file = (
        load_network(Brought(str(path), "cifar_resnet8"), Facts(names, 1, scale)).eval() for path in paths
    )
    assert run.class_names == names
    assert run.weights_hash() == folder.weights_hash() != file.weights_hash(), "a file does not bring its normalisation"
    assert file.normalisation == scale
    for key, value in run.backbone.state_dict().items():
        assert torch.equal(value, file.backbone.state_dict()[key])


def test_weights_hash_sees_weights_and_normalisation() -> None:
    network = make()
    before = network.weights_hash()
    assert make().weights_hash() == before
    assert make(seed=1).weights_hash() != before
    with torch.no_grad():
        next(network.parameters()).view(-1)[0].add_(1e-6)
    assert network.weights_hash() != before
    other = Network("cifar_resnet8", make().backbone, Normalisation(SCALE.mean, SCALE.mean, "here"), NAMES)
    assert other.weights_hash() != before


@pytest.mark.parametrize("files", [("config.json",), ("config.json", "log.jsonl"), ("config.json", "checkpoint.pt")])
def test_unfinished_run(files: tuple[str, ...], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text(json.dumps({"arguments": {}}) if name == "config.json" else "")
    with pytest.raises(UserError, match=r"The run .* is not finished: it has no .*student\. Repeat its command"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r" is missing or damaged \("),
        ("{", r" is missing or damaged \("),
        ("[" * 100_000, r" is missing or damaged \("),
        ("null", r": expected names with values; got None\."),
        ("[]", r": expected names with values; got \[\]\."),
        ("{}", ": architecture is missing"),
        ('{"architecture": "resnet18", "pretrained_cfg": 3}', r", pretrained_cfg: expected names with values; got 3\."),
        ('{"architecture": "resnet18", "pretrained_cfg": {"mean": 3}}', r", mean: expected a list; got 3\."),
    ],
)
def test_damaged_folder(config: str | None, message: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=rf"config\.json{message}.*holds config\.json and model\.safet"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": 3}, "json, architecture: expected text; got 3"),
        ({"architecture": "3"}, "There is no model named '3'"),
        ({"model_args": 3}, "json, model_args: expected names with values; got 3"),
        ({"model_args": {"nonsense": 1}}, "json: model_args has nonsense, which cifar_resnet8 does not take"),
        ({"label_names": 3}, "json, label_names: expected a list or nothing"),
        ({"label_names": [0, 1, 2]}, r"json, label_names\[0\]: expected text; got 0"),
        (
            {"label_names": ["a", "b", "a"]},
            r"json: label_names has 'a' 2 times\. Correct them, or remove them and state",
        ),
        ({"label_names": ["a", " ", "b"]}, "json: label_names has a class without a name"),
        ({"label_names": None, "num_classes": 10**12}, "no label_names, and num_classes is 1000000000000"),
        ({"pretrained_cfg": {"mean": ["x"], "std": [1]}}, r"json, mean\[0\]: expected a number; got 'x'"),
        ({"pretrained_cfg": {"std": [1]}}, "json: mean is missing"),
    ],
)
def test_folder_of_odd_values(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    network = make()
    save_network(network, network.backbone.state_dict(), tmp_path, (3, 32, 32))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,) * 3, (0.2, 0.0, 0.2)), ((0.5,), (0.2,) * 3), ((float("nan"),), (1,))]
)
def test_normalisation_that_makes_nan_is_refused(
    mean: tuple[float, ...], std: tuple[float, ...], tmp_path: Path
) -> None:
    network = make()
    save_network(network, network.backbone.state_dict(), tmp_path, (3, 32, 32))
    file = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match="The normalisation from the arguments cannot be used"):
        load_network(Brought(str(file), "cifar_resnet8", mean, std), Facts(NAMES, 3, None))
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": mean, "std": std}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"The normalisation from .*config\.json cannot be used: mean \["):
        load_folder(tmp_path)


def test_folder_whose_weights_are_of_another_network(tmp_path: Path) -> None:
    for name in ("cifar_resnet8", "cifar_resnet14"):
        network = make(name)
        save_network(network, network.backbone.state_dict(), tmp_path / name, (3, 32, 32))
    shutil.copy(tmp_path / "cifar_resnet8" / "model.safetensors", tmp_path / "cifar_resnet14" / "model.safetensors")
    with pytest.raises(UserError, match=r"These weights are not of cifar_resnet14\. Keys missing: layer1"):
        load_folder(tmp_path / "cifar_resnet14")


def test_weights_of_a_folder_that_timm_wrote_without_safetensors(tmp_path: Path) -> None:
    network = make("test_resnet")
    save_network(network, network.backbone.state_dict(), tmp_path, (3, 32, 32))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["written_by"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(safetensors.torch.load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert torch.equal(logits(load_folder(tmp_path).eval()), logits(network))
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"no weights in .*; looked for model\.safetensors, pytorch_model\.bin"):
        load_folder(tmp_path)


def test_teachers_of_nan_are_refused_everywhere(few: Path, teacher: Path, sskd: Cli, tmp_path: Path) -> None:
    shutil.copytree(teacher / "student", tmp_path / "nan")
    file = tmp_path / "nan" / "model.safetensors"
    state = safetensors.torch.load_file(file)
    state["conv1.weight"] = state["conv1.weight"] * float("nan")
    safetensors.torch.save_file(state, file)
    words = ("--data", few, "--out", tmp_path / "out")
    for command in (
        ("evaluate", "--data", few, "--network", tmp_path / "nan"),
        ("teacher", *words, "--init", tmp_path / "nan", "--epochs", "0"),
        ("distill", *words, "--student", "cifar_resnet8", "--method", "kd", "--teacher", tmp_path / "nan"),
    ):
        refused = sskd(*command)
        assert refused.code == 2 and "not finite: NaN or infinity in conv1.weight" in refused.err


def test_a_repository_of_the_hub_is_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make("test_resnet")
    save_network(network, network.backbone.state_dict(), tmp_path, (3, 32, 32))
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config["pretrained_cfg"] |= {"url": "http://127.0.0.1:9/x.pth", "custom_load": True, "hf_hub_id": "other/one"}
    file.write_text(json.dumps(config))
    monkeypatch.setattr("sskd.models.folders.hub_folder", lambda *_: tmp_path)
    monkeypatch.setattr(building, "quick_hub", lambda _: None)
    asked: list[dict[str, Any]] = []

    def created(name: str, **arguments: Any) -> Any:
        asked.append(arguments)
        raise RuntimeError("no network here")

    monkeypatch.setattr(timm, "create_model", created)
    with pytest.raises(UserError, match="The weights of hf-hub:someone/something cannot be had: no network here"):
        load_network(Brought("hf-hub:someone/something"), Facts(NAMES, 3, SCALE))
    given = asked[0]["pretrained_cfg"]
    assert (given["hf_hub_id"], given["source"], given["label_names"]) == ("someone/something", "hf-hub", [*NAMES])
    assert not {"url", "file", "custom_load", "state_dict"} & given.keys()
    file.write_text(json.dumps(config | {"architecture": "os:system"}))
    with pytest.raises(UserError, match="would import and run system"):
        load_network(Brought("hf-hub:someone/something"), Facts(NAMES, 3, SCALE))
