"""Which of several sets of weights is taken, wherever they lie; and what each command says of the network it took."""

import json
import shlex
from pathlib import Path
from unittest.mock import Mock

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from sskd.api import distillation, teaching
from sskd.errors import UserError
from sskd.export import onnx as exporting
from sskd.jobs.card import model_card
from sskd.jobs.job import Job
from sskd.jobs.machine import as_measured
from sskd.jobs.predict import predictions
from sskd.models.checkpoints import save_network
from sskd.models.load import Brought, Facts, load_folder, load_network
from sskd.models.network import Network
from sskd.models.normalisation import Normalisation
from sskd.report.command import command_of
from tests.conftest import Cli
from tests.reports import config
from tests.test_checkpoints import NAMES, SCALE, logits, make

FACTS = Facts(NAMES, 3, SCALE)


def folder_of_two(place: Path) -> tuple[Network, Network]:
    """A folder, as timm writes it, whose file holds plain and averaged weights; and the networks that have them."""
    plain, averaged = make(seed=0), make(seed=1)
    save_network(plain, plain.backbone.state_dict(), place, (3, 32, 32))
    stated = json.loads((place / "config.json").read_text())
    del stated["written_by"]
    (place / "config.json").write_text(json.dumps(stated))
    (place / "model.safetensors").unlink()
    states = {"state_dict": plain.backbone.state_dict(), "state_dict_ema": averaged.backbone.state_dict()}
    torch.save(states, place / "pytorch_model.bin")
    return plain, averaged


def test_folders_with_several_sets(tmp_path: Path) -> None:
    plain, averaged = folder_of_two(tmp_path)
    for weights, network in (("ema", averaged), ("state_dict_ema", averaged), ("plain", plain), (None, plain)):
        loaded = load_network(Brought(str(tmp_path), weights=weights), FACTS).eval()
        assert torch.equal(logits(loaded), logits(network))
    assert "The plain ones are taken; say ema" in loaded.notes[0]
    with pytest.raises(UserError, match=r"holds no weights 'nonsense' .* it has them under state_dict, state_dict_ema"):
        load_network(Brought(f"local-dir:{tmp_path}", weights="nonsense"), FACTS)


@pytest.mark.parametrize("place", ["run", "run/student", "torchvision:resnet18", "resnet10t.c3_in1k", "my_models:make"])
def test_one_set_is_not_named(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = make()
    save_network(network, network.backbone.state_dict(), Path("run/student"), (3, 32, 32))
    with pytest.raises(
        UserError, match=r"brings one set of weights, so none is chosen by the name 'ema': leave it out"
    ):
        load_network(Brought(place, weights="ema"), FACTS)


def test_evaluate_refuses_to_choose_from_a_run(sskd: Cli, teacher: Path, few: Path) -> None:
    refused = sskd("evaluate", "--network", teacher, "--data", few, "--weights", "ema")
    assert refused.code == 2 and "brings one set of weights" in refused.err


def test_averaged_weights_that_alone_fit_are_taken_and_it_is_said_why(tmp_path: Path) -> None:
    plain, averaged = make(classes=tuple(map(str, range(9)))), make(seed=1)
    path = tmp_path / "both.pth"
    torch.save({"state_dict": plain.backbone.state_dict(), "state_dict_ema": averaged.backbone.state_dict()}, path)
    loaded = load_network(Brought(str(path), "cifar_resnet8"), FACTS).eval()
    assert torch.equal(logits(loaded), logits(averaged)) and "holds no others" not in loaded.notes[0]
    assert "under state_dict_ema are taken, which fit this network best: those under state_dict have" in loaded.notes[0]
    other = load_network(Brought(str(path), "cifar_resnet8", weights="plain"), FACTS).eval()
    assert torch.equal(logits(other), logits(plain))


def test_the_size_is_advised_beside_other_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made, path = timm.create_model("test_vit", img_size=96, num_classes=7), tmp_path / "vit.pth"
    torch.save(made.state_dict(), path)
    with pytest.raises(UserError, match=r"for images of 96 pixels, not of 160 .*: --teacher_size 96"):
        load_network(Brought(str(path), "test_vit"), Facts(NAMES, 3, SCALE, 32))
    loaded = load_network(Brought(str(path), "test_vit", size=96), Facts(NAMES, 3, SCALE, 32))
    assert len(loaded.class_names) == 7 and torch.equal(
        loaded.backbone.state_dict()["head.weight"], made.state_dict()["head.weight"]
    )


def brought_of(job: Job) -> tuple[str | None, str | None]:
    return job.init.weights if job.init else None, job.teacher.weights if job.teacher else None


def test_weights_of_the_students_init() -> None:
    job = distillation("cifar_resnet8", "digits", "t", student_init="s.pth", student_init_weights="ema")
    assert brought_of(job) == ("ema", None)
    words = shlex.split(command_of({"network": "n", "data": "d", **job.arguments()}, "out"))
    assert words[words.index("--student_init_weights") + 1] == "ema" and "--teacher_weights" not in words
    job = distillation("cifar_resnet8", "digits", "t.pth", teacher_weights="swa")
    assert brought_of(job) == (None, "swa") and "--teacher_weights swa" in command_of(job.arguments(), "out")
    with pytest.raises(UserError, match=r"student_init_weights says which .* student_init names no file"):
        distillation("cifar_resnet8", "digits", "t", student_init_weights="ema")
    with pytest.raises(UserError, match=r"teacher_weights says which .* teacher names no file"):
        distillation("cifar_resnet8", "digits", nn.Linear(2, 2), teacher_weights="ema")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"init_weights says which .* init names no file"):
        teaching("digits", "cifar_resnet8", init_weights="ema")


def test_predict_says_which_weights_were_taken(sskd: Cli, tmp_path: Path) -> None:
    folder_of_two(tmp_path / "net")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    done = sskd("predict", "--run", tmp_path / "net", tmp_path / "a.png")
    assert done.code == 0 and "sskd: " in done.err and "The plain ones are taken; say ema" in done.err
    assert "skipped" not in done.err and "taken" not in done.out


def test_predict_and_export_warn_of_probabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, len(NAMES)), nn.Softmax(1))
    network = Network("own", inner, Normalisation((0.5,) * 3, (0.5,) * 3, "here"), NAMES, 32)
    network.notes = ("Of its weights this is worth saying.",)
    said = "WARNING: there gives probabilities (its outputs sum to 1), not logits"
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    monkeypatch.setattr("sskd.jobs.predict.load_network", lambda *_: network)
    found, skipped, notes = predictions("there", [str(tmp_path / "a.png")])
    assert len(found) == 1 and not skipped and notes[0] == network.notes[0] and notes[1].startswith(said)
    monkeypatch.setattr(exporting, "load_network", lambda *_: network)
    for step, value in {"_installed": Mock(), "_written": b"", "_compared": 0.0, "_milliseconds": 1.0}.items():
        monkeypatch.setattr(exporting, step, Mock(return_value=value))  # of what is written, test_export.py
    record = exporting.export("there", str(tmp_path / "own.onnx"))
    assert record["notes"] == notes


def test_a_place_is_measured_alike_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in (Path("run"), Path("student")):
        (run / "student").mkdir(parents=True)
        stated = {"execution": {"precision": "bf16", "channels_last": True}}
        (run / "config.json").write_text(json.dumps(stated))
        for place in (f"{run}", f"{run}/student", f"local-dir:{run}", f"local-dir:{run}/student"):
            execution = as_measured(place, "cpu")
            assert (execution.precision, execution.channels_last) == ("bf16", True), place
    assert as_measured("local-dir:elsewhere", "cpu").precision == "fp32"


def test_a_module_that_was_handed_over_is_read_as_its_card_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    code = (
        "from torch import nn\ndef net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))"
    )
    (tmp_path / "handed_over_net.py").write_text(code)
    name = "handed_over_net:net"
    network = make(name)
    network.architecture = "module:Own"
    save_network(network, network.backbone.state_dict(), tmp_path / "student", (3, 32, 32))
    settings = json.loads((tmp_path / "student" / "config.json").read_text())
    own, record = config("kd", 0, train_images=9, teacher_images=9), {"test": {"top1": 0.5, "top5": 1.0}, "epoch": 1}
    own |= {
        "class_names": [*NAMES],
        "teacher": {},
        "environment": dict.fromkeys(("command", "sskd", "torch", "timm"), 0),
    }
    result = {"network": "module:Own", "last": record, "best": None, "student": "last epoch", "parameters": 1}
    card = model_card(own, result, settings)
    assert 'load_folder(Path("FOLDER"), "package.module:factory").eval()' in card and "trust_code=True" not in card
    assert torch.equal(logits(load_folder(tmp_path / "student", name).eval()), logits(network))
    with pytest.raises(UserError, match=r"no file describes\. .* --architecture, distill: .* sskd teacher --init"):
        load_folder(tmp_path / "student", trust_code=True)
