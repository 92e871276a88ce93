"""What several processes are told about batch norms."""

from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from sskd.data.feed import Share
from sskd.train.distributed import World
from sskd.train.synchronised import SynchronisedBatchNorm, arrange_norms

SECOND = Share(1, 4)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), BatchNormAct2d(4)), nn.BatchNorm1d(4))


def test_statistics_of_a_process_are_pointed_out() -> None:
    made = network()
    told = arrange_norms([made], World(SECOND), 64)
    assert "see the 16 images of their own process, not the 64" in told and "--batch_norm synchronised" in told
    assert not any(isinstance(part, SynchronisedBatchNorm) for part in made.modules())
    assert arrange_norms([nn.Linear(2, 2), nn.LayerNorm(2)], World(SECOND), 64) == ""


def test_what_stays_with_a_process_is_counted() -> None:
    made = network()
    told = arrange_norms([made], World(SECOND, batch_norm="synchronised"), 64)
    assert told.startswith("1 batch norms do more than normalise") and isinstance(made[2], SynchronisedBatchNorm)
    plain = nn.Sequential(nn.BatchNorm2d(4))
    assert arrange_norms([plain], World(SECOND, batch_norm="synchronised"), 64) == ""
    assert isinstance(plain[0], SynchronisedBatchNorm)
