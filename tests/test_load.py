"""Published weights, without a network: what is taken from their record, and how their classes meet the data's."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data.imagenet_info import ImageNetInfo

from sskd.data import load_source
from sskd.data.source import Source
from sskd.errors import UserError
from sskd.jobs.teachers import fit_classes, fresh
from sskd.models import load
from sskd.models.build import Built, brought, build
from sskd.models.checkpoints import save_network
from sskd.models.load import Brought, Facts, load_network
from sskd.models.network import create_network
from sskd.models.normalisation import Normalisation
from tests.photographs import write_photographs

RECORD = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "the weights of resnet10t.some_tag")
FACTS = Facts(("bee", "ant"), 3, None)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Weights of 1,000 classes that could have been downloaded."""
    asked: list[str] = []

    def made(name: str, classes: int, channels: int, pretrained: bool = False, **_: Any) -> Built:
        asked.append(name)
        assert pretrained
        torch.manual_seed(0)
        return Built(timm.create_model("resnet10t"), 3, 176, RECORD)

    monkeypatch.setattr(load, "build", made)
    return asked


@pytest.fixture
def synsets(tmp_path: Path) -> Source:
    """Photographs in folders that are named as ImageNet's classes."""
    write_photographs(tmp_path / "photographs", {"train": 3, "test": 2})
    for split in ("train", "test"):
        for old, number in (("building", 7), ("flower", 3)):
            name = ImageNetInfo("imagenet-1k").index_to_label_name(number)
            (tmp_path / "photographs" / split / old).rename(tmp_path / "photographs" / split / name)
    return load_source(str(tmp_path / "photographs"))


def test_published_weights_bring_their_record(published: list[str], synsets: Source) -> None:
    network = load_network(Brought("resnet10t.some_tag"), FACTS).eval()
    assert published == ["resnet10t.some_tag"]
    assert (network.size, network.normalisation, len(network.class_names)) == (176, RECORD, 1000)
    fitted, notes = fit_classes(network, "resnet10t.some_tag", synsets)
    assert notes == ("Of the teacher's 1000 classes the 2 of photographs are used, by name.",)
    assert synsets.class_names[0] == network.class_names[3], "sorted by synset: the flower's folder comes first"
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(fitted.eval()(images), network(images)[:, [3, 7]])
        assert network.prepared(images).shape == (2, 3, 176, 176)


def test_arguments_come_before_the_record(published: list[str]) -> None:
    stated = Brought("resnet10t.some_tag", mean=(0.1,) * 3, std=(0.2,) * 3, size=64)
    network = load_network(stated, FACTS)
    assert (network.normalisation.mean, network.normalisation.origin, network.size) == ((0.1,) * 3, "the arguments", 64)
    with pytest.raises(UserError, match="both a mean and a std"):
        load_network(Brought("resnet10t.some_tag", mean=(0.1,) * 3), FACTS)


def test_a_name_beside_the_place_must_be_that_networks(published: list[str]) -> None:
    assert load_network(Brought("resnet10t.some_tag", "resnet10t"), FACTS).architecture == "resnet10t.some_tag"
    with pytest.raises(UserError, match=r"resnet10t\.some_tag holds a resnet10t\.some_tag, not a resnet18"):
        load_network(Brought("resnet10t.some_tag", "resnet18"), FACTS)


def test_fine_tuning_trains_at_the_size_of_the_data(published: list[str], synsets: Source) -> None:
    network = fresh("resnet10t", synsets, (3, 64, 64), Brought("resnet10t.some_tag"), {})
    assert network.size is None and network.shapes((3, 64, 64))["logits"] == (2,)
    assert network.normalisation == RECORD


def test_position_embeddings_keep_their_size(synsets: Source, tmp_path: Path) -> None:
    made = create_network("test_vit", ("a", "b"), (3, 32, 32), RECORD)
    save_network(made, made.backbone.state_dict(), tmp_path / "vit", (3, 32, 32))
    network = fresh("test_vit", synsets, (3, 64, 64), Brought(str(tmp_path / "vit")), {})
    assert network.size == 32 and network.shapes((3, 64, 64))["logits"] == (2,)


def test_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no network at no-such-thing\. Give a run directory"):
        load_network(Brought("no-such-thing"), FACTS)
    with pytest.raises(UserError, match=r"There is no weights file nowhere\.pth"):
        load_network(Brought("nowhere.pth", "resnet10t"), FACTS)


class Stating(torch.nn.Linear):
    mean, std, size = [0.1, 0.2], [0.3, 0.4], 20


def test_factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = brought(Stating(2, 2), "mine", None)
    assert (built.channels, built.size) == (2, 20)
    assert built.normalisation == Normalisation((0.1, 0.2), (0.3, 0.4), "mine itself")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "makers.py").write_text(
        "import torch\n"
        "def plain(): return torch.nn.Linear(3, 2)\n"
        "def counting(num_classes): return torch.nn.Linear(3, num_classes)\n"
        "def nothing(): return 3\n"
        "def failing(): raise RuntimeError('no such layer')\n"
        "def unknown(): return layers.Linear(3, 2)\n"
        "def inside(): return torch.nn.Linear('a', 2)\n"
        "number = 3\n"
    )
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    assert build("makers:plain", 7, 3).backbone.get_parameter("weight").shape == (2, 3)
    assert build("makers:counting", 7, 3).backbone.get_parameter("weight").shape == (7, 3)
    for name, message in (
        ("makers:nothing", "makers:nothing must return a torch.nn.Module; it returned a int"),
        ("makers:absent", "The network makers:absent cannot be imported: module 'makers' has no attribute 'absent'"),
        ("no_such_module:make", "No module named 'no_such_module'"),
        (
            "makers:failing",
            "makers:failing cannot be built for 7 classes and 3 channels: RuntimeError: no such .*makers.py, line 5",
        ),
        ("makers:unknown", r"3 channels: NameError: name 'layers' is not defined \(.*makers.py, line 6\)"),
        ("makers:inside", r"3 channels: TypeError: .* \(.*makers.py, line 7\)"),
        ("makers:number", r"3 channels: TypeError: 3 is not a callable object"),
        ("leaving:net", r"network leaving:net cannot be imported: SystemExit: 3 \(.*leaving.py, line 2\)"),
        ("torchvision:resnet19", "no torchvision model named 'resnet19'.*Did you mean"),
    ):
        with pytest.raises(UserError, match=message):
            build(name, 7, 3)
