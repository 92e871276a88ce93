"""`sskd check`: what is said of a distillation before it is run."""

import re
from pathlib import Path

import pytest

from sskd.cli.check import _short
from sskd.jobs import check as checking
from sskd.methods import METHODS
from sskd.train.trial import Timed
from tests.conftest import Cli

QUICK = ("--threads", "1", "--batch_size", "20", "--validation", "0", "--epochs", "6", "--precision", "fp32")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def rows(out: str) -> list[list[str]]:
    """The cells of the tables' lines."""
    return [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in out.splitlines() if "│" in line]


def test_a_method_that_fits(
    sskd: Cli, few: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--student", "cifar_resnet8x4", "--data", few, "--teacher", teacher, "--method", "crd", *QUICK)
    done = sskd("check", *words, "--options.negatives", "50")
    assert done.code == 0 and not done.err
    found = {row[0]: row[1:] for row in rows(done.out)}
    assert found["stage2"] == ["128 x 4 x 4", "32 x 4 x 4"] and found["pooled"] == ["256", "64"]
    tables = [row[1:] for row in rows(done.out) if row[0] == "crd"]
    stage, steps, loss, reads, trained = tables[0]
    assert (stage, steps, loss) == ("student", "6 x 3", "1 ce + 0.8 crd")
    assert reads == "student logits, pooled; teacher pooled"
    assert int(trained.replace(",", "")) > 128 * (256 + 64)
    stage, step, rate, decoding, bound, epoch, evaluation, whole = tables[1]
    assert (stage, decoding, bound) == ("student", "-", "step") and re.fullmatch(r"\d+ ms", step)
    assert float(rate.replace(",", "")) == pytest.approx(20 / float(step.removesuffix(" ms")) * 1000, rel=0.1)
    assert all(re.fullmatch(r"[\d.]+ (s|min)", text) for text in (epoch, evaluation, whole))
    assert "crd: two banks of 60 x 128 numbers" in done.out and "50 negatives were asked for" in done.out
    assert re.search(r"Steps of 20 images on cpu, 1 thread, fp32 channels_last.* measuring: [\d,]+ MiB", done.out)
    assert not [*tmp_path.iterdir()], "nothing is written"


def test_a_method_that_does_not_fit(sskd: Cli, few: Path, teacher: Path) -> None:
    words = ("--student", "cifar_vgg8", "--data", few, "--teacher", teacher, *QUICK, "--measure", "false")
    done = sskd("check", *words, "--method", "at")
    assert done.code == 2
    assert "The student has 4 (stage1 [128, 4, 4]" in done.err and "the teacher has 3 (stage1 [16, 8, 8]" in done.err
    assert '--options.stages \'["stage1:stage1", ' in done.err
    assert {"stage4", "pooled"} <= {row[0] for row in rows(done.out)}, "the taps are shown all the same"
    suggested = re.search(r"--options.stages '(.*?)'", done.err)
    assert suggested and sskd("check", *words, "--method", "at", "--options.stages", suggested[1]).code == 0


def test_all_methods(sskd: Cli, few: Path, teacher: Path) -> None:
    words = ("--student", "cifar_resnet8x4", "--data", few, "--teacher", teacher, *QUICK, "--measure", "false")
    done = sskd("check", *words, "--method", "all")
    assert done.code == 0
    misfits = set(re.findall(r"DOES NOT FIT (\w+): ", done.out))
    assert misfits == {"fsp", "kdsvd"}
    assert {row[0] for row in rows(done.out)} >= METHODS.keys() - misfits
    assert " ms" not in done.out and "Time here" not in done.out
    refused = sskd("check", *words, "--method", "all", "--options.temperature", "3")
    assert refused.code == 2 and "--options belong to one method" in refused.err


def test_why_steps_are_not_one_graph_is_said(
    sskd: Cli, few: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Timed(0.01, 1.0, "the host waits for the GPU")
    monkeypatch.setattr(checking, "time_step", lambda *_, **given: refused if given["which"] else Timed(0.01, 1.0))
    done = sskd("check", "--data", few, "--student", "cifar_resnet8", "--teacher", teacher, "--epochs", "2")
    assert done.code == 0, done.err
    assert "sskd: no CUDA graph is made of student (the host waits for the GPU)." in done.out


def test_taps_are_said_briefly() -> None:
    assert _short(("logits", "stage1", "stage2", "stage3", "pooled")) == "logits, stage1-3, pooled"
    assert _short(("stage1.pre", "stage2.pre", "stage2", "stage4")) == "stage1-2.pre, stage2, stage4"


def test_mistakes(sskd: Cli, few: Path) -> None:
    assert "named 'crdd'" in sskd("check", "--student", "cifar_resnet8", "--data", few, "--method", "crdd").err
    without = sskd("check", "--student", "cifar_resnet8", "--data", few, "--method", "kd", *QUICK)
    assert without.code == 2 and "Say --teacher" in without.err
