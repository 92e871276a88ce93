"""The zoo against the published networks: keys, numbers, taps, names."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import save_for_hf
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.models.resnet import CifarNet
from sskd.models.shufflenet_v2 import SplitUnit
from sskd.models.zoo import PUBLISHED, names, resolve
from tests.oracles.published import fill

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the published numbers are not in {GOLDEN}")

# channels and sides of stem and stages for an image of 32 pixels, then the width of the pooled vector
SHAPES: dict[str, tuple[list[tuple[int, int]], int]] = {
    "resnet20": ([(16, 32), (16, 32), (32, 16), (64, 8)], 64),
    "resnet8x4": ([(32, 32), (64, 32), (128, 16), (256, 8)], 256),
    "resnet20x05": ([(8, 32), (8, 32), (16, 16), (32, 8)], 32),
    "resnet20x0375": ([(6, 32), (6, 32), (12, 16), (24, 8)], 24),
    "ResNet50": ([(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)], 2048),
    "wrn_16_1": ([(16, 32), (16, 32), (32, 16), (64, 8)], 64),
    "wrn_16_2": ([(16, 32), (32, 32), (64, 16), (128, 8)], 128),
    "vgg8": ([(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)], 512),
    "vgg13": ([(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)], 512),
    "MobileNetV2": ([(16, 16), (12, 16), (16, 8), (48, 4), (160, 2)], 1280),
    "ShuffleV1": ([(24, 32), (240, 16), (480, 8), (960, 4)], 960),
    "ShuffleV2": ([(24, 32), (116, 16), (232, 8), (464, 4)], 1024),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small networks on a busy machine: more threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


every = pytest.mark.parametrize("published", PUBLISHED)


def build(published: str, **kwargs: Any) -> CifarNet:
    model = timm.create_model(PUBLISHED[published], **kwargs)
    assert isinstance(model, CifarNet)
    return model.eval()


def record(model: CifarNet, x: Tensor) -> tuple[dict[str, Tensor], Counter[str]]:
    """Run once; return what every tap saw and how often, having checked that nobody wrote over it."""
    seen: dict[str, Tensor] = {}
    versions: dict[str, int] = {}
    times: Counter[str] = Counter()

    def keep(name: str, value: Tensor) -> None:
        seen[name], versions[name] = value, value._version
        times[name] += 1

    for name, tap in model.taps.items():
        module = model.get_submodule(tap.module)
        if tap.at == "in":
            module.register_forward_pre_hook(lambda _, args, name=name: keep(name, args[0]))
        else:
            module.register_forward_hook(lambda _, args, out, name=name: keep(name, out))
    with torch.no_grad():
        model(x)
    assert versions == {name: value._version for name, value in seen.items()}
    return seen, times


def test_the_zoo_is_the_published_list() -> None:
    assert names() == [*dict.fromkeys(PUBLISHED.values())] and len(names()) == 25
    assert set(names()) <= set(timm.list_models("cifar_*"))
    if GOLDEN.is_dir():
        assert set(PUBLISHED) == set(json.loads((GOLDEN / "state_dict_keys.json").read_text()))


@needs_golden
@every
def test_keys_and_numbers_are_the_published_ones(published: str) -> None:
    model = build(published).double()
    keys = json.loads((GOLDEN / "state_dict_keys.json").read_text())[published]
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == keys
    with np.load(GOLDEN / "models_dev.npz", allow_pickle=False) as golden:
        if f"{published}.logits" not in golden:
            return
        x = torch.from_numpy(golden["input"]).double()
        stored = {name: golden[f"{published}.{name}"] for name in ("features", "logits")}
    fill(model, "")
    with torch.no_grad():
        features = model.forward_head(model.forward_features(x), pre_logits=True)
        ours = {"features": features.numpy(), "logits": model(x).numpy()}
    for name, expected in stored.items():
        assert np.abs(ours[name] - expected).max() <= 1e-9 * np.abs(expected).max(), name


@every
def test_other_images_and_classes(published: str) -> None:
    model = build(published, num_classes=10, in_chans=1)
    for height, width in ((8, 8), (40, 65)):
        with torch.no_grad():
            assert model(torch.randn(1, 1, height, width)).shape == (1, 10)
    assert model.num_classes == 10
    model.reset_classifier(0)
    assert model.num_classes == 0 and model(torch.randn(1, 1, 16, 16)).shape == (1, model.num_features)
    model.double().reset_classifier(3, "avg")
    assert model(torch.randn(1, 1, 16, 16).double()).shape == (1, 3)
    with pytest.raises(ValueError, match="max"):
        model.reset_classifier(3, "max")


@every
def test_taps_fire_once_with_the_values_they_name(published: str) -> None:
    torch.manual_seed(0)
    model = build(published)
    seen, times = record(model, torch.randn(2, 3, 32, 32))
    stages = len([name for name in model.taps if name.startswith("stage") and not name.endswith(".pre")])
    order = [f"stage{k}{pre}" for k in range(1, stages + 1) for pre in ("", ".pre")]
    assert set(model.taps) == {"stem", *order, "pooled"}
    assert times == Counter(list(model.taps))
    assert seen["pooled"].shape == (2, model.num_features)
    if not published.startswith("wrn"):
        assert seen["stem"].min() == 0
    for k in range(1, stages + 1):
        stage, pre = seen[f"stage{k}"], seen[f"stage{k}.pre"]
        assert pre.min() < 0
        if published.startswith("wrn"):
            assert stage.min() < 0
            norm = model.get_submodule(model.taps[f"stage{k}.pre"].module)
            torch.testing.assert_close(pre, norm(stage))
        elif published == "MobileNetV2":
            assert pre is stage
        else:
            assert torch.equal(F.relu(pre), stage)


@pytest.mark.parametrize("published", SHAPES)
def test_tap_shapes(published: str) -> None:
    maps, width = SHAPES[published]
    seen, _ = record(build(published), torch.randn(1, 3, 32, 32))
    ours = [tuple(value.shape[1:]) for name, value in seen.items() if name == "stem" or name[-1].isdigit()]
    assert ours == [(channels, side, side) for channels, side in maps]
    assert seen["pooled"].shape == (1, width)


def test_vgg_pools_once_more_from_64_pixels_on() -> None:
    model = build("vgg8")
    for side, last in ((32, 4), (62, 7), (64, 4), (96, 6)):
        assert model.forward_features(torch.randn(1, 3, side, side)).shape == (1, 512, last, last)


def test_shuffle_v2_units_are_the_published_ones() -> None:
    torch.manual_seed(0)
    unit = SplitUnit(8).double()
    source = torch.randn(2, 8, 5, 5, dtype=torch.float64, requires_grad=True)

    def published(x: Tensor) -> Tensor:
        kept, y = x[:, :4], x[:, 4:]
        y = unit.bn2(unit.conv2(F.relu(unit.bn1(unit.conv1(y)))))
        y = torch.cat([kept, F.relu(unit.bn3(unit.conv3(y)))], 1)
        return y.view(2, 2, 4, 5, 5).permute(0, 2, 1, 3, 4).reshape(2, 8, 5, 5)

    results = []
    for f in (published, unit):
        out = f(F.relu(source))
        weights = torch.arange(out.numel(), dtype=out.dtype).view_as(out)
        results.append((out, *torch.autograd.grad((out * weights).sum(), [source, *unit.parameters()])))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("published", ["resnet8", "wrn_16_2", "MobileNetV2", "ShuffleV1", "ShuffleV2"])
def test_one_graph(published: str) -> None:
    model = build(published)
    x = torch.randn(1, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


def test_initialisation() -> None:
    torch.manual_seed(0)
    for published in ("resnet20", "wrn_16_2", "vgg8", "MobileNetV2"):
        for module in build(published).modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
                fan_out = module.kernel_size[0] ** 2 * module.out_channels
                assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
                assert module.bias is None or not module.bias.any()
            if isinstance(module, nn.BatchNorm2d):
                assert (module.weight == 1).all() and not module.bias.any()
    for published in ("vgg8", "MobileNetV2"):
        weight, bias = build(published).get_classifier().parameters()
        assert weight.std().item() == pytest.approx(0.01, rel=0.05) and not bias.any()
    _, bias = build("wrn_16_1").get_classifier().parameters()
    assert not bias.any()


@pytest.mark.parametrize("published", ["resnet8", "vgg8", "MobileNetV2", "ShuffleV2"])
def test_timm_loads_a_saved_network(published: str, tmp_path: Path) -> None:
    saved = build(published, num_classes=7)
    save_for_hf(saved, str(tmp_path), safe_serialization=True)
    loaded = timm.create_model(resolve(f"local-dir:{tmp_path}"), pretrained=True).eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(x), saved(x))
    finer = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=5, in_chans=1).eval()
    assert finer(x[:, :1]).shape == (1, 5)


def test_timm_knows_the_data() -> None:
    for published in PUBLISHED:
        model = build(published)
        config: Any = timm.get_pretrained_cfg(PUBLISHED[published])
        assert config.input_size == (3, 32, 32) and config.num_classes == 100 and not config.fixed_input_size
        assert config.mean == (0.5071, 0.4866, 0.4409) and config.std == (0.2675, 0.2565, 0.2761)
        assert isinstance(model.get_submodule(config.first_conv), nn.Conv2d)
        assert model.get_submodule(config.classifier) is model.get_classifier()
        assert model.forward_features(torch.randn(1, 3, 32, 32)).shape[2:] == config.pool_size


@pytest.mark.parametrize(
    ("name", "found"),
    [
        *((published, full) for published, full in PUBLISHED.items() if not timm.is_model(published)),
        *((full, full) for full in PUBLISHED.values()),
        ("wrn40-2", "cifar_wrn_40_2"),
        ("WRN-16-2", "cifar_wrn_16_2"),
        ("resnet-32x4", "cifar_resnet32x4"),
        ("VGG8", "cifar_vgg8"),
        ("mobilenetv2", "cifar_mobilenet_v2"),
        ("shufflenet_v1", "cifar_shufflenet_v1"),
        ("cifar-vgg16", "cifar_vgg16"),
        ("ResNet50", "cifar_resnet50"),
        ("resnet50", "resnet50"),
        ("vgg13", "vgg13"),
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("hf-hub:timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"),
        ("local-dir:runs/x/student", "local-dir:runs/x/student"),
    ],
)
def test_resolve(name: str, found: str) -> None:
    assert resolve(name) == found


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("cifar_resnet33", "cifar_resnet32"),
        ("resnet32x", "resnet32x4"),
        ("VGG16", "vgg16"),
        ("VGG16", "cifar_vgg16"),
        ("Resnet50", "cifar_resnet50"),
        ("efficientnet_b00", "efficientnet_b0"),
    ],
)
def test_unknown_names_get_an_offer(name: str, offered: str) -> None:
    with pytest.raises(UserError, match=name) as error:
        resolve(name)
    assert repr(offered) in str(error.value)


def test_a_name_like_no_other_gets_the_list_of_ours_alone() -> None:
    with pytest.raises(UserError) as error:
        resolve("qqqqq")
    assert all(name in str(error.value) for name in names()) and len(str(error.value)) < 1000
