"""Files, run directories, what a result was computed with, and which epoch a run keeps."""

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sskd.bench.results import read_cell
from sskd.bench.task import Task
from sskd.data import load_source
from sskd.data.splits import cut
from sskd.errors import UserError
from sskd.files import flat
from sskd.runs import Run
from tests.conftest import Cli, in_memory
from tests.interruption import checkpoint_at


def begun(path: Path, **arguments: object) -> Run:
    run = Run(path)
    run.start({"arguments": arguments})
    return run


def test_new_folders(tmp_path: Path) -> None:
    assert Run(tmp_path / "nowhere").config() is None
    assert Run(tmp_path).config() is None
    assert not (tmp_path / "nowhere").exists(), "asking makes nothing"
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"exists and is not a run directory\. Choose another --out"):
        Run(tmp_path).config()
    with pytest.raises(UserError, match=r"thesis\.tex exists and is not a run directory"):
        Run(tmp_path / "thesis.tex").config()


def test_config_comparison(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", seed=0, sizes=(1, 2), training={"lr": 0.1, "threads": 2})
    run.same({"seed": 0, "sizes": (1, 2), "training": {"lr": 0.1, "threads": 2}}, "arguments")
    run.same({"seed": 0, "sizes": [1, 2], "training": {"lr": 0.1}}, "arguments", but=("training.threads",))
    with pytest.raises(UserError) as caught:
        run.same({"seed": 1, "training": {"lr": 0.2, "threads": 2}, "new": True}, "arguments")
    assert (
        "another config (arguments: new: None there, True now; seed: 0 there, 1 now; sizes: [1, 2] there, None now; "
        "training.lr: 0.1 there, 0.2 now)"
    ) in str(caught.value)
    with pytest.raises(UserError, match=r"config\.json has no teacher, so no run wrote it as it is\. Restore it"):
        run.same({"weights": "abc"}, "teacher")


def test_flat() -> None:
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": {}}) == {"a": 1, "b.c": 2, "b.d.e": 3}


def test_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert run.records() == []
    for epoch in (1, 2):
        run.log({"stage": "s", "epoch": epoch})
    run.save(checkpoint_at(2))
    run.log({"stage": "s", "epoch": 3})
    with (run.path / "log.jsonl").open("a") as log:
        log.write('{"stage": "s", "epoch": 4')
    assert [record["epoch"] for record in run.records()] == [1, 2, 3]
    again = Run(run.path)
    state = again.load()
    assert state is not None
    assert state["modules"]["student"]["weight"].tolist() == [2.0] * 3
    assert (run.path / "log.jsonl").read_text() == '{"stage": "s", "epoch": 1}\n{"stage": "s", "epoch": 2}\n'
    again.log({"stage": "s", "epoch": 3})
    assert [record["epoch"] for record in again.records()] == [1, 2, 3]


def test_without_a_checkpoint_the_log_begins_anew(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.log({"stage": "s", "epoch": 1})
    assert run.load() is None
    assert run.records() == []


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (b"garbage\n", "is damaged"),
        (b"\xff\xfe\n", "is damaged"),
        (b'{"epoch"\n', "is damaged"),
        (b"null\n", "expected names with values; got None"),
        (b"[1]\n", "expected names with values"),
        (b"{}\n", "stage is missing"),
        (b'{"stage": "s", "seconds": "long"}\n', "seconds: expected a number; got 'long'"),
    ],
)
def test_damaged_log(damage: bytes, what: str, tmp_path: Path) -> None:
    """It is refused before a training goes on, not at its end."""
    run, good = begun(tmp_path / "run"), b'{"stage": "s", "epoch": 2}\n'
    (run.path / "log.jsonl").write_bytes(good + damage)
    run.save(checkpoint_at(2))
    (run.path / "log.jsonl").write_bytes(good + damage + good)
    for read in (run.records, run.load):
        with pytest.raises(UserError, match=rf"log\.jsonl, line 2.*{what}.*Restore it, or start anew with another"):
            read()


@pytest.mark.parametrize("name", ["config.json", "result.json", "log.jsonl"])
def test_a_folder_in_the_place_of_a_file(name: str, tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).mkdir()
    read = {"config.json": run.config, "result.json": run.result, "log.jsonl": run.records}[name]
    with pytest.raises(UserError, match=rf"{name} cannot be read \(Is a directory\)"):
        read()


@pytest.mark.parametrize("content", ["null", "[]", "3", "{}", '{"last": null, "best": null}',
                                     '{"last": {"epoch": 1, "test": {}}, "best": null}', "[" * 100_000])  # fmt: skip
def test_a_result_that_is_none_does_not_count(content: str, tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run.path / "result.json").write_text(content)
    with pytest.raises(UserError, match=r"result\.json.*Delete it, and the command that made the run finishes it"):
        run.result()
    task = Task("t", "student", run.path, {})
    assert not task.finished
    assert read_cell(task).status == "begun"


@pytest.mark.parametrize("content", ["null", "[]", '{"arguments": null}', '{"arguments": {"training": 3}}',
                                     '{"data": {"train_images": "many"}}', '{"stages": [3]}',
                                     '{"class_names": {}}', '{"teacher": 3}', '{"execution": [1]}'])  # fmt: skip
def test_a_config_of_another_shape(content: str, tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run.path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json.*expected.*Restore it, or start anew with another --out"):
        run.config()
    assert read_cell(Task("t", "student", run.path, {})).status == "begun"


def test_a_config_that_was_edited(tmp_path: Path) -> None:
    """In what decides the result; where things lie, and the machine, may change."""
    run = Run(tmp_path / "run")
    run.start({"arguments": {"data": "here", "method": "kd"}, "execution": {"precision": "fp32", "device": "cpu"}})
    run.refuse_edited()
    file = run.path / "config.json"
    written = file.read_text()
    file.write_text(written.replace("here", "there").replace('"cpu"', '"cuda"'))
    run.refuse_edited()
    for before, after in (("fp32", "bf16"), ("kd", "at")):
        file.write_text(written.replace(before, after))
        with pytest.raises(UserError, match=r"config\.json was changed since the run began.*Restore it"):
            run.refuse_edited()


def test_log_cut_within_a_character(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run.path / "log.jsonl").write_bytes(b'{"stage": "s"}\n{"reused": "' + "é".encode()[:1])
    assert run.records() == [{"stage": "s"}]


def test_a_place_that_cannot_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"cannot be looked into: File name too long\. Choose another --out"):
        Run(tmp_path / ("x" * 300)).config()

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(UserError, match=r"run cannot be looked into: Permission denied"):
        Run(tmp_path / "run").config()


def test_result_means_finished(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert run.result() is None
    result = {"last": {"epoch": 1, "test": {"top1": 0.5}}, "best": None, "own": [1]}
    run.finish(result)
    assert Run(run.path).result() == result
    assert Task("t", "student", run.path, {}).finished


def test_best_epoch_on_validation_is_kept(distil: Cli, sskd: Cli, few: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = distil("--out", run, "--validation", "0.3", "--epochs", "8", "--method", "kd", "--optim.lr", "0.2")
    assert done.code == 0
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    scores = [record["validation"]["top1"] for record in records]
    best = scores.index(max(scores))
    assert best < len(scores) - 1, "else this test says nothing: choose another seed"
    result = json.loads((run / "result.json").read_text())
    assert result["best"] == records[best]
    assert result["last"] == records[-1]
    assert result["student"] == "best epoch on validation"
    assert records[best]["test"] != records[-1]["test"]
    top1 = f"{records[best]['test']['top1']:.2%}"
    assert f"best  epoch {best + 1}: validation top-1 {max(scores):.2%}, test top-1 {top1}" in done.out
    measured = sskd("evaluate", "--network", run, "--data", few)
    assert f"top1  {top1}" in measured.out
    kept, last = load_file(run / "student" / "model.safetensors"), torch.load(run / "checkpoint.pt", weights_only=True)
    for key, value in last["best"]["student"].items():
        assert torch.equal(kept[key], value)
    assert any(not torch.equal(kept[key], value) for key, value in last["modules"]["student"].items())


def test_splits_are_apart(few: Path) -> None:
    source = load_source(str(few))
    splits = cut(source, 12, 0.5, 0)
    assert (len(splits.full), len(splits.train), len(splits.evaluation["validation"])) == (48, 24, 12)
    assert list(splits.evaluation) == ["validation", "test"]
    seen = {image.numpy().tobytes() for image in in_memory(splits.full).pixels}
    assert not seen & {image.numpy().tobytes() for image in in_memory(splits.evaluation["validation"]).pixels}
    assert {image.numpy().tobytes() for image in in_memory(splits.train).pixels} <= seen
    assert splits.evaluation["test"] is source.test
