"""What importing sskd loads, and when timm learns of its networks. Each in a process of its own."""

import subprocess
import sys

import pytest

from sskd import __version__


def output(code: str) -> str:
    """What a fresh Python prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_tables_are_made_without_torch() -> None:
    heavy = "('torch', 'timm', 'torchvision')"
    modules = "sskd.bench.table, sskd.bench.published, sskd.cli.main, sskd.settings"
    assert output(f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_the_version_loads_no_torch() -> None:
    code = "import sys; from sskd.cli.main import main; code = main(['--version']); print(code, 'torch' in sys.modules)"
    assert output(code) == f"sskd {__version__}\n0 False"


@pytest.mark.parametrize("order", ["sskd, timm", "timm, sskd"])
def test_timm_knows_the_networks(order: str) -> None:
    code = f"import {order}; print(timm.is_model('cifar_resnet8'), sskd.distill.__module__)"
    assert output(code) == "True sskd.api"


def test_names_that_are_not_there() -> None:
    sskd = pytest.importorskip("sskd")
    with pytest.raises(AttributeError, match="no attribute 'destill'"):
        _ = sskd.destill
