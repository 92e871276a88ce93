"""Weights files as people have them: prefixes, averages beside plain weights, other classes, other sizes, misfits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.models.checkpoints import save_network
from sskd.models.load import Brought, Facts, from_module, load_folder, load_network
from sskd.models.network import Network, create_network
from tests.test_checkpoints import NAMES, SCALE, logits, make, prefixed

State = dict[str, Tensor]
FACTS = Facts(NAMES, 3, SCALE)


def saved(content: Any, tmp_path: Path, name: str = "weights.pth") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


def read(path: Path, architecture: str = "cifar_resnet8", **more: Any) -> Network:
    return load_network(Brought(str(path), architecture, **more), FACTS).eval()


def inside(state: State, key: str) -> State:
    """With the name of a compiled submodule in the middle of the keys."""
    return {name.replace(f"{key}.", f"{key}._orig_mod.", 1): value for name, value in state.items()}


WRAPPED: dict[str, Callable[[State], Any]] = {
    "torch.compile": lambda state: prefixed(state, "_orig_mod."),
    "compiled submodule": lambda state: inside(state, "layer1"),
    "compiled, parallel": lambda state: {"state_dict": prefixed(state, "module._orig_mod.")},
    "Lightning": lambda state: {"state_dict": prefixed(state, "model."), "hyper_parameters": {"lr": 0.1}},
    "Lightning with a loss": lambda state: {"state_dict": {**prefixed(state, "net."), "loss.weight": torch.ones(3)}},
    "AveragedModel": lambda state: {**prefixed(state, "module."), "n_averaged": torch.tensor(3)},
    "nested": lambda state: {"ema": {"module": state, "updates": 3}},
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"state": {0: {}}}},
    "under two names": lambda state: {**prefixed(state, "model."), **prefixed(state, "teacher.model.")},
}


@pytest.mark.parametrize("layout", WRAPPED)
def test_any_prefix_after_which_all_names_fit(layout: str, tmp_path: Path) -> None:
    network = make()
    loaded = read(saved(WRAPPED[layout](network.backbone.state_dict()), tmp_path))
    assert torch.equal(logits(loaded), logits(network))


def test_the_prefix_that_was_taken_is_said(tmp_path: Path) -> None:
    state = make().backbone.state_dict()
    path = saved({"state_dict": prefixed(state, "net.")}, tmp_path)
    assert read(path).notes == (f"{path}: the weights under state_dict.net are taken.",)
    assert read(saved({"model": state}, tmp_path)).notes == ()


def test_two_sets_of_weights_are_asked_about(tmp_path: Path) -> None:
    one, other = make(seed=0), make(seed=1)
    both = {f"module.{name}.{key}": value for name, made in (("student", one), ("teacher", other))
            for key, value in made.backbone.state_dict().items()}  # fmt: skip
    path = saved({"model": both}, tmp_path)
    with pytest.raises(UserError, match=r"under model\.module\.student, model\.module\.teacher\. Say .*--weights"):
        read(path)
    for place, network in (("module.student", one), ("module.student.", one), ("model.module.teacher", other)):
        assert torch.equal(logits(read(path, weights=place)), logits(network))
    with pytest.raises(UserError, match=r"holds no weights 'module\.nobody' of this network; it has them under"):
        read(path, weights="module.nobody")


def test_of_two_networks_the_one_whose_shapes_fit_is_taken(tmp_path: Path) -> None:
    small, wide = make("cifar_resnet8"), make("cifar_resnet8x4")
    path = saved({name: made.backbone.state_dict() for name, made in (("student", small), ("teacher", wide))}, tmp_path)
    assert torch.equal(logits(read(path)), logits(small))
    assert torch.equal(logits(read(path, "cifar_resnet8x4")), logits(wide))


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "ema_state_dict", "averaged", "swa_model"])
def test_averaged_weights_beside_plain_ones(key: str, tmp_path: Path) -> None:
    plain, averaged = make(seed=0), make(seed=1)
    path = saved(
        {"state_dict": plain.backbone.state_dict(), key: prefixed(averaged.backbone.state_dict(), "module.")}, tmp_path
    )
    loaded = read(path)
    assert torch.equal(logits(loaded), logits(plain))
    assert loaded.notes[0].startswith(
        f"{path} holds plain weights (under state_dict) and averaged ones (under {key}.mod"
    )
    assert "say ema for the averaged (evaluate, probe: --weights, distill: --teacher_weights" in loaded.notes[0]
    assert torch.equal(logits(read(path, weights="ema")), logits(averaged))
    assert torch.equal(logits(read(path, weights="plain")), logits(plain))
    with pytest.raises(UserError, match="holds no weights 'ema' of this network; it has them under the top"):
        read(saved(plain.backbone.state_dict(), tmp_path), weights="ema")


def test_counters_of_batch_norms_may_be_absent_and_nothing_else(tmp_path: Path) -> None:
    network = make()
    state = {k: v for k, v in network.backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert torch.equal(logits(read(saved(state, tmp_path))), logits(network))
    del state["bn1.running_var"]
    with pytest.raises(UserError, match=r"Keys missing: bn1\.running_var\. The file lacks a part of cifar_resnet8"):
        read(saved(state, tmp_path))


# each mismatch has its own advice


def test_the_same_network_in_other_code(tmp_path: Path) -> None:
    names = make().backbone.state_dict().items()
    state = {f"m{i}.{key.rsplit('.', 1)[1]}": value for i, (key, value) in enumerate(names)}
    with pytest.raises(UserError) as caught:
        read(saved(state, tmp_path))
    assert "shapes of cifar_resnet8 under other names (47 missing, 47 left over): it is the same" in str(caught.value)
    assert str(caught.value).endswith("give that code's function as the architecture, package.module:factory.")


def change(state: State, key: str, *shape: int) -> State:
    return {**state, key: torch.ones(shape)}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda s: make("cifar_resnet8x4").backbone.state_dict(),
            "of another variant than cifar_resnet8: name the right",
        ),
        (lambda s: change(s, "bn1.weight", 3), "its layers have other widths: name the variant"),
        (
            lambda s: change(s, "conv1.weight", 16, 1, 3, 3),
            "take images of 1 channels, and cifar_resnet8 was built for 3",
        ),
        (
            lambda s: change(s, "head.weight", 2),
            r"Keys left over: head\.weight\. The file holds more than cifar_resnet8",
        ),
        (lambda s: {k: v for k, v in s.items() if "fc" not in k}, r"missing: fc\.bias, fc\.weight\. The file lacks"),
        (lambda s: {k.replace("bn1", "norm1"): v for k, v in s.items()}, r"other names \(16 missing, 16 left over\)"),
        (lambda s: {k.replace("v1.weight", "v1.weight_orig"): v for k, v in s.items()}, "Their layers are pruned"),
        (lambda s: {k: v.to(torch.int8) if v.ndim == 4 else v for k, v in s.items()}, "They are quantised"),
    ],
)
def test_each_mismatch_has_its_own_advice(made: Callable[[State], State], message: str, tmp_path: Path) -> None:
    path = saved(made(make().backbone.state_dict()), tmp_path)
    with pytest.raises(UserError, match=message):
        read(path)


def test_torchscript_and_quantised_files(tmp_path: Path) -> None:
    layer = nn.Sequential(nn.Linear(2, 2))
    torch.jit.save(torch.jit.script(layer), tmp_path / "script.pt")
    with pytest.raises(UserError, match=r"script\.pt is a TorchScript archive, which holds code\. Save its weights"):
        read(tmp_path / "script.pt")
    eager = torch.ao.quantization.quantize_dynamic(layer, {nn.Linear})
    with pytest.raises(UserError, match="quantised"):
        read(saved(eager.state_dict(), tmp_path))


# classes and sizes


def test_a_file_for_more_classes_is_not_matched_by_number(tmp_path: Path) -> None:
    network = make(classes=tuple(map(str, range(12))))
    loaded = read(saved(network.backbone.state_dict(), tmp_path))
    assert len(loaded.class_names) == 12 and not {"0", "1"} & {*loaded.class_names}
    assert torch.equal(logits(loaded), logits(network))


@pytest.mark.parametrize("how", ["stated", "of the data"])
def test_a_transformer_is_built_for_the_size_of_its_weights(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = timm.create_model("test_vit", img_size=32, num_classes=3).eval()
    path, images = saved(made.state_dict(), tmp_path), torch.rand(2, 3, 32, 32)
    stated = Brought(str(path), "test_vit", size=32 if how == "stated" else None)
    loaded = load_network(stated, Facts(NAMES, 3, SCALE, 32 if how == "of the data" else 64)).eval()
    assert loaded.size == 32 and torch.equal(loaded(images), made(loaded.prepared(images)))
    with pytest.raises(
        UserError,
        match=r"of 32 pixels, not of 160 pixels, for which .*: --teacher_size 32",
    ):
        load_network(Brought(str(path), "test_vit"), Facts(NAMES, 3, SCALE, 64))


def test_a_folder_without_class_names_is_taken_in_the_datas_order_or_not_at_all(tmp_path: Path) -> None:
    network = make()
    save_network(network, network.backbone.state_dict(), tmp_path, (3, 32, 32))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["label_names"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_network(Brought(str(tmp_path)), FACTS)
    assert loaded.class_names == NAMES and "name none of their 3 classes" in loaded.notes[0]
    other = load_network(Brought(str(tmp_path)), Facts(("0", "1"), 3, SCALE))
    assert other.class_names == ("#0", "#1", "#2"), "not the numbers that the data's classes are called by"


def test_torchvisions_transformer_comes_back_at_its_size(tmp_path: Path) -> None:
    name = "torchvision:vit_b_32"
    network = create_network(name, NAMES, (3, 32, 32), SCALE).eval()
    save_network(network, network.backbone.state_dict(), tmp_path, (3, 32, 32))
    assert torch.equal(logits(load_folder(tmp_path).eval()), logits(network))


def test_a_class_of_timms_that_was_built_directly_keeps_its_classifier() -> None:
    made: Any = timm.models.resnet  # whose annotations are narrower than what it takes
    module = made.ResNet(made.BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
    network = from_module(module, "module:ResNet", Brought("module:ResNet"), FACTS)
    assert network.shapes((3, 32, 32))["pooled"] == (512,)
    assert network.taps["pooled"].module == "backbone.fc"


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    for value, key in ((float("nan"), "layer1.0.conv1.weight"), (float("inf"), "bn1.running_var")):
        state = {k: v.clone() for k, v in make().backbone.state_dict().items()}
        state[key].view(-1)[0] = value
        with pytest.raises(UserError, match=rf"weights\.pth are not finite: NaN or infinity in {key}\. Its training"):
            read(saved(state, tmp_path))


def test_a_mask_of_minus_infinity_is_none_of_that(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))
            self.fc = nn.Linear(3, 3)

        def forward(self, images: Tensor) -> Tensor:
            value: Tensor = self.fc(images.mean((2, 3)))
            return value

    from_module(Masked(), "module:Masked", Brought("module:Masked"), FACTS)
    broken = Masked()
    broken.fc.weight.data[0, 0] = float("-inf")
    with pytest.raises(UserError, match=r"module:Masked are not finite: NaN or infinity in fc\.weight"):
        from_module(broken, "module:Masked", Brought("module:Masked"), FACTS)
