"""Any network of timm and torchvision distils with SSKD, as student and teacher, or is refused with the reason."""

import pytest
import torch
from torch import nn

from sskd.data.batches import Resident
from sskd.data.source import DataInfo
from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.plan import Optim, Pair
from sskd.models.network import Network, create_network
from sskd.models.normalisation import Normalisation
from sskd.models.taps import Shapes
from sskd.train.loop import Data, Schedule, StageRun, Trainer
from sskd.train.optim import build_optimizer
from sskd.train.step import Execution, Step
from tests.trainers import Kept

NAMES, COUNT = tuple("abcd"), 4
NORMALISATION = Normalisation((0.5,) * 3, (0.25,) * 3, "the test")

# the smallest of each family, and the side of the images: 64 where 32 is too little for its strides
TIMM = {
    "beit_base_patch16_224": 32,
    "cait_xxs24_224": 32,
    "coat_lite_tiny": 64,
    "coatnet_pico_rw_224": 64,
    "convit_tiny": 32,
    "convmixer_768_32": 32,
    "convnext_atto": 32,
    "convnextv2_atto": 32,
    "crossvit_tiny_240": 240,
    "cs3darknet_s": 32,
    "cspresnet50": 32,
    "davit_tiny": 64,
    "deit_tiny_patch16_224": 32,
    "deit_tiny_distilled_patch16_224": 32,
    "densenet121": 32,
    "dla46_c": 32,
    "dpn48b": 32,
    "edgenext_xx_small": 64,
    "efficientformer_l1": 64,
    "efficientnet_lite0": 32,
    "efficientvit_b0": 32,
    "eva02_tiny_patch14_224": 28,
    "fastvit_t8": 64,
    "focalnet_tiny_srf": 64,
    "gcvit_xxtiny": 224,
    "gernet_s": 32,
    "ghostnet_050": 32,
    "gmixer_12_224": 32,
    "gmlp_ti16_224": 32,
    "hardcorenas_a": 32,
    "hgnetv2_b0": 32,
    "hiera_tiny_224": 64,
    "hrnet_w18_small": 32,
    "inception_next_atto": 64,
    "inception_v3": 96,
    "lcnet_035": 32,
    "levit_128s": 64,
    "mambaout_femto": 64,
    "maxvit_pico_rw_256": 64,
    "mixer_s32_224": 32,
    "mnasnet_small": 32,
    "mobilenetv3_small_050": 32,
    "mobilenetv4_conv_small_035": 32,
    "mobileone_s0": 32,
    "mobilevit_xxs": 64,
    "mobilevitv2_050": 64,
    "nest_tiny": 64,
    "nf_regnet_b0": 32,
    "pit_ti_224": 64,
    "poolformer_s12": 64,
    "pvt_v2_b0": 64,
    "regnetx_002": 32,
    "repghostnet_050": 32,
    "repvgg_a0": 32,
    "repvit_m0_9": 32,
    "res2net50_14w_8s": 32,
    "resmlp_12_224": 32,
    "resnest14d": 32,
    "resnet10t": 32,
    "rexnet_100": 32,
    "selecsls42": 64,
    "semnasnet_050": 32,
    "seresnext26d_32x4d": 32,
    "skresnet18": 32,
    "starnet_s050": 32,
    "swin_tiny_patch4_window7_224": 64,
    "swinv2_tiny_window8_256": 64,
    "test_vit": 32,
    "tiny_vit_5m_224": 64,
    "tinynet_e": 32,
    "tresnet_m": 64,
    "twins_pcpvt_small": 64,
    "vgg11": 32,
    "visformer_tiny": 64,
    "vit_tiny_patch16_224": 32,
    "vitamin_small_224": 64,
    "vovnet39a": 32,
    "xception41": 64,
    "xcit_nano_12_p16_224": 32,
}
# but maxvit_t and vgg11, which take a minute together and have sisters above
TORCHVISION = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 96,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 64,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vit_b_16": 32,
    "wide_resnet50_2": 32,
}
CONVOLUTIONAL = r"classifier; Tap pooled of .*: the classifier is convolutional"
REFUSED = {
    "dla46_c": CONVOLUTIONAL,
    "dpn48b": CONVOLUTIONAL,
    "efficientformer_l1": r"efficientformer_l1 cannot take images of 3x64x64 .*The size of tensor",
    "torchvision:squeezenet1_1": r"classifier; torchvision:squeezenet1_1 ends in no linear layer",
}


def info(side: int) -> DataInfo:
    labels = torch.arange(COUNT)
    return DataInfo("noise", COUNT, NAMES, labels, NORMALISATION.mean, NORMALISATION.std, (3, side, side))


def assert_channels(network: Network, shapes: Shapes) -> None:
    """Maps [C, H, W] and tokens [L, C] at the taps have the channels that timm says they have."""
    features = getattr(network.backbone, "feature_info", [])
    entries = features if isinstance(features, list) else features.get_dicts()
    channels = {f"backbone.{entry['module']}": entry["num_chs"] for entry in entries}
    for name, tap in network.taps.items():
        if tap.at == "out" and tap.module in channels:
            assert shapes[name][0 if len(shapes[name]) == 3 else -1] == channels[tap.module], name


def distil(name: str, side: int) -> None:
    """Two steps of SSKD's student stage, the network its own teacher."""
    torch.manual_seed(0)
    shape = (3, side, side)
    student, teacher = (create_network(name, NAMES, shape, NORMALISATION) for _ in range(2))
    pair = Pair(
        student.shapes(shape),
        teacher.shapes(shape),
        info(side),
        {"student": student.left_out, "teacher": teacher.left_out},
    )
    assert_channels(student, pair.student)
    student.check_training(shape)
    plan = METHODS["sskd"](pair, epochs=1, optim=Optim(lr=0.01))
    tap = student.taps["pooled"]
    classifier = student.get_submodule(tap.module)
    if isinstance(classifier, nn.Linear):
        assert pair.student["pooled"] == (classifier.in_features,)
    feed = Resident(torch.randint(256, (COUNT, *shape), dtype=torch.uint8), torch.arange(COUNT))
    kept = Kept()
    trainer = Trainer(student, teacher, plan, Data(feed, feed, {}), Schedule(2, 0), Execution(), kept, kept, kept)
    run, step = StageRun(trainer, plan.stages[-1]), Step(plan.stages[-1], student, teacher, Execution())
    parameters = [p for module in run.enter() for p in module.parameters()]
    optimizer = build_optimizer(parameters, plan.stages[-1].optim)
    before = [p.detach().clone() for p in student.parameters()]
    for cut, generator in feed.epoch(2, 4, (0,)):
        losses = step(run.batch(cut, generator, 0))
        assert losses.total.isfinite() and losses.total > 0
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True)]
    assert sum(moved) > 0.5 * len(moved)
    assert all(p.isfinite().all() for p in student.parameters())


@pytest.mark.parametrize(
    ("name", "side"), [*TIMM.items(), *((f"torchvision:{name}", side) for name, side in TORCHVISION.items())]
)
def test_family(name: str, side: int) -> None:
    if name not in REFUSED:
        distil(name, side)
        return
    with pytest.raises(UserError, match=REFUSED[name]):
        distil(name, side)
