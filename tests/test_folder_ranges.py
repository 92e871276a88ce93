"""Numbers of a model folder's config.json that no network and no image can have."""

import json
from pathlib import Path

import pytest

from sskd.errors import UserError
from sskd.models.checkpoints import save_network
from sskd.models.load import load_folder
from tests.test_checkpoints import make


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_pct": -1}, r"config\.json: pretrained_cfg\.crop_pct must be above 0 and at most 1; got -1"),
        ({"crop_pct": 1.5}, r"crop_pct must be above 0 and at most 1; got 1\.5"),
        ({"input_size": [3, 0, 0]}, r"config\.json: pretrained_cfg\.input_size must be from 1 to 10000; got 0"),
        ({"input_size": [3, -32, -32]}, r"input_size must be from 1 to 10000; got -32"),
    ],
)
def test_out_of_range(change: dict[str, object], message: str, tmp_path: Path) -> None:
    network = make()
    save_network(network, network.backbone.state_dict(), tmp_path, (3, 32, 32))
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config["pretrained_cfg"] |= change
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        load_folder(tmp_path)
