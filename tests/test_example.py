"""The example says the same as the package, in at most 100 lines, and it runs."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from sskd.methods.parts import CrossEntropy, SoftTargets
from sskd.methods.sskd import Similarity, Transformed
from sskd.views.contrastive import Contrastive
from sskd.views.pretext import Batch

FILE = Path(__file__).parents[1] / "examples" / "sskd_in_100_lines.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_keeps_its_promise() -> None:
    lines = FILE.read_text().splitlines()
    assert len(lines) <= 100
    assert not any("sskd.methods" in line or "sskd.train" in line for line in lines)


@pytest.mark.parametrize("size", [2, 5, 8])
def test_its_losses_are_the_packages(example: ModuleType, size: int) -> None:
    torch.manual_seed(size)
    t_logits, s_logits = torch.randn(2, size, 4, 10, dtype=torch.float64)
    t_z, s_z = torch.randn(2, size, 4, 6, dtype=torch.float64)
    labels = torch.randint(0, 10, (size,))
    found = example.losses((t_logits, t_z), (s_logits, s_z), labels)
    batch = Batch(torch.zeros(size, 4, 1, 1, 1), labels, labels, labels[:, None].expand(-1, 4), torch.zeros(()), {})
    student, teacher = {"logits": s_logits, "pooled": s_z}, {"logits": t_logits, "pooled": t_z}
    terms = {
        "ce": CrossEntropy(),
        "kd": SoftTargets(4.0),
        "tf": Transformed(4.0, 1.0),
        "ss": Similarity(Contrastive(), nn.Identity(), nn.Identity(), 0.5, 0.75),
    }
    assert found.keys() == terms.keys()
    for name, term in terms.items():
        torch.testing.assert_close(found[name], term(student, teacher, batch), rtol=1e-12, atol=1e-12)


def test_it_runs(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """All stages; too short for the student, long enough for the teacher to be better than chance, which is 10 %."""
    accuracy = example.main(teacher_steps=40, head_steps=2, student_steps=3)
    printed = capsys.readouterr().out
    found = re.fullmatch(r"teacher (.+)% \(1,000 labels\), student (.+)% \(50 labels\)\n", printed)
    assert found is not None
    teacher, student = found.groups()
    assert float(teacher) > 20 and float(student) == pytest.approx(100 * accuracy, abs=0.051)
