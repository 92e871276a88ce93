"""`sskd probe`, `sskd similarity`, `sskd inspect` on small finished runs, and what they refuse."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sskd.analyses.answers import outputs, viewed
from sskd.analyses.finished import Looked, load_finished
from sskd.analyses.probe import probe
from sskd.api import distill, evaluate
from sskd.jobs.job import restored
from sskd.methods.plan import Optim
from sskd.methods.sskd import Similarity
from tests.conftest import TRAINING, Cli, in_memory
from tests.photographs import write_photographs

HEAD = ("kind", "data", "split", "images", "teacher", "student", "command", "versions", "created", "notes")


@pytest.fixture(scope="module")
def distilled(few: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a finished student of SSKD, whose kept epoch may be an earlier one than the last."""
    out = tmp_path_factory.mktemp("analysed") / "sskd"
    small: dict[str, Any] = {"precision": "fp32", "channels_last": False, "threads": 1, "tensorboard": False}
    options = {"head_epochs": 1, "ratio_ss": 0.5}
    chosen: dict[str, Any] = {"epochs": 2, "batch_size": 15, "validation": 15, "fraction": 0.9, "options": options}
    distill("cifar_resnet8", str(few), str(teacher), out=str(out), **chosen, **small)
    return out


def kept(run: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "analyses" / f"{name}.json").read_text())
    return found


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def test_similarity(distilled: Path, sskd: Cli) -> None:
    done = sskd("similarity", distilled, "--images", "20", "--ss_images", "4")
    assert done.code == 0, done.err
    assert "predictions agree on" in done.out and "CKA of features" in done.out and "similarity.json" in done.out
    found = kept(distilled, "similarity")
    assert all(key in found for key in HEAD) and found["images"] == 20
    taps = ["stem", "stage1", "stage2", "stage3", "pooled", "logits"]
    assert found["stages"] == {"student": taps, "teacher": taps}
    assert len(found["cka"]) == 6 and all(len(row) == 6 and max(row) < 1.3 for row in found["cka"])
    assert set(found["l2"]) == set(taps) and all(value > 0 for value in found["l2"].values())
    assert 0 <= found["predictions"]["agreement"] <= 1 and found["predictions"]["kl"] > 0
    ss = found["ss"]
    assert [len(ss[side]) for side in ("student", "teacher")] == [12, 12] and len(ss["classes"]) == 4
    assert all(len(row) == 4 and max(map(abs, row)) <= 1 for side in ("student", "teacher") for row in ss[side])
    for path in ss["thumbnails"]:
        with Image.open(distilled / "analyses" / path) as image:
            assert image.format == "JPEG" and image.size == (8, 8)


def test_heads_are_those_that_were_trained(distilled: Path) -> None:
    """The head's accuracy on all test images is what the run has logged of its last epoch."""
    finished = load_finished(str(distilled))
    heads = finished.heads
    assert heads is not None and heads.ratio == 0.5
    logged = finished.result["last"]["test"]["ss_accuracy"]
    shares, test = [], in_memory(finished.parts.splits.evaluation["test"])
    for batch in viewed(finished, Looked(test, None), 15):
        logits = heads.term.answers(heads.term.head, outputs(heads.network, batch, "pooled"), batch)
        shares.append((logits.argmax(1) == heads.term.target(batch)).float().mean())
    assert float(torch.stack(shares).mean()) == pytest.approx(logged)


def test_the_run_is_put_together_as_it_was(distilled: Path, few: Path) -> None:
    finished = load_finished(str(distilled))
    arguments = finished.config["arguments"]
    job = restored(distilled, arguments)
    assert json.loads(json.dumps(job.arguments())) == arguments
    assert isinstance(job.training.optim, Optim) and job.training.scale == (0.08, 1.0)
    kept_epoch = (finished.result["best"] or finished.result["last"])["test"]["top1"]
    assert evaluate(str(distilled), str(few))["top1"] == pytest.approx(kept_epoch)
    assert any(isinstance(term, Similarity) for _, term in finished.plan.stages[-1].loss.values())
    one, other = (finished.images("test", 10, seed).images.pixels for seed in (0, 1))
    assert torch.equal(one, finished.images("test", 10, 0).images.pixels) and not torch.equal(one, other)


def test_inspect(distilled: Path, sskd: Cli) -> None:
    words = ("inspect", distilled, "--split", "train", "--images", "40", "--noisy", "3", "--points", "12")
    done = sskd(*words)
    assert done.code == 0, done.err
    assert (
        "head, of views" in done.out
        and "rows are transferred (ratio 0.5)" in done.out
        and "calibration" in done.out
        and "What the head mistakes" in done.out
    )
    found = kept(distilled, "inspect")
    assert all(key in found for key in HEAD) and found["images"] == 40
    levels = found["error_levels"]
    assert sum(levels["ss"]["counts"]) == 30 * 3 and levels["ss"]["edges"][-1] == 15  # two whole batches of 15
    assert sum(levels["tf"]["counts"]) == 40 * 3 and levels["tf"]["edges"] == [0, 1, 2, 3]
    assert found["kept"]["ss"]["ratio"] == 0.5 and found["kept"]["tf"]["kept"] == 1
    assert [one["epoch"] for one in found["kept_by_epoch"]] == [1, 2]
    assert 3 <= len(found["noisy"]) <= 6 and found["noisy"][0]["rank"] == 1
    pairs = [frozenset((one["own"], one["taken_for"])) for one in found["noisy"]]
    assert len({*pairs}) == len(pairs), "two images are shown once, whichever views of them are taken for the other"
    assert "Transferred in training" in done.out and "student's head right" in done.out
    for one in found["noisy"]:
        assert one["similarity"] > one["own_similarity"] and one["image"] != one["taken_for"]
        assert all((distilled / "analyses" / one[key]).is_file() for key in ("image", "own", "taken_for"))
    for side, epoch in (("", None), ("teacher_", 0)):
        assert sum(one["images"] for one in found[f"{side}per_class"]) == 40, epoch
        assert sum(one["count"] for one in found[f"{side}calibration"]["bins"]) == 40
    assert {one["side"] for one in found["embedding"]["points"]} == {"student", "teacher"}
    before = {key: value for key, value in found.items() if key not in ("created", "command")}
    assert sskd(*words).code == 0
    assert before == {key: value for key, value in kept(distilled, "inspect").items() if key in before}
    assert sskd(*words, "--noisy", "0", "--points", "0").code == 0
    assert kept(distilled, "inspect")["embedding"] is None and not [*(distilled / "analyses/inspect").glob("*.jpg")]


@pytest.mark.parametrize(("pretext", "answers"), [("rotation", 4), ("exemplar", 60)])
def test_other_pretexts(pretext: str, answers: int, distil: Cli, sskd: Cli, tmp_path: Path) -> None:
    words = ("--epochs", "1", "--options.head_epochs", "1", "--options.pretext", pretext, "--out", tmp_path / "run")
    assert distil(*words).code == 0
    done = sskd("inspect", tmp_path / "run", "--images", "20", "--points", "0")
    levels = kept(tmp_path / "run", "inspect")["error_levels"].get("ss")
    if pretext == "exemplar":
        assert done.code == 0 and levels is None and "--split train shows its answers" in done.out
        done = sskd("inspect", tmp_path / "run", "--split", "train", "--images", "20", "--points", "0")
        levels = kept(tmp_path / "run", "inspect")["error_levels"]["ss"]
    assert done.code == 0 and levels["answers"] == levels["edges"][-1] == answers and sum(levels["counts"]) == 80
    found = kept(tmp_path / "run", "inspect")
    assert found["noisy"] == [] and found["kept"]["ss"]["kept"] == 1
    assert sskd("similarity", tmp_path / "run", "--images", "20").code == 0
    assert kept(tmp_path / "run", "similarity")["ss"] is None


def test_runs_without_a_teacher(teacher: Path, sskd: Cli, tmp_path: Path) -> None:
    run = tmp_path / "ce"
    shutil.copytree(teacher, run)
    assert "was trained without a teacher (ce)" in sskd("similarity", run).err
    done = sskd("similarity", run, "--teacher", teacher, "--images", "9")
    assert done.code == 0 and "no contrastive head" in done.out
    found = kept(run, "similarity")
    assert found["ss"] is None and found["predictions"] == {"kl": 0, "kl_temperature": 1, "agreement": 1}
    assert all(found["cka"][i][i] == pytest.approx(1) for i in range(6)) and set(found["l2"].values()) == {0}
    assert sskd("inspect", run, "--images", "99", "--points", "0").code == 0
    found = kept(run, "inspect")
    assert found["images"] == 30 and found["top1"] == pytest.approx(result_of(run)["last"]["test"]["top1"])
    assert found["teacher"] is None and found["noisy"] == [] and "teacher_per_class" not in found
    assert found["error_levels"] == {} and found["kept"] == {}
    assert "without a teacher" in sskd("probe", run, "--side", "teacher", "--data", "digits").err


def test_photographs_are_seen_as_in_evaluation(sskd: Cli, tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs", {"train": 12, "test": 10})
    words = ("--data", photographs, "--model", "cifar_resnet8", "--size", "32", "--epochs", "2", "--validation", "0")
    assert sskd("teacher", *words, "--out", tmp_path / "run", *TRAINING).code == 0
    assert sskd("inspect", tmp_path / "run", "--points", "0").code == 0
    found = kept(tmp_path / "run", "inspect")
    assert found["images"] == 20
    assert found["top1"] == pytest.approx(result_of(tmp_path / "run")["last"]["test"]["top1"])


def test_what_has_moved(distilled: Path, teacher: Path, few: Path, sskd: Cli, tmp_path: Path) -> None:
    run, data, there = tmp_path / "run", tmp_path / "few", tmp_path / "taught"
    shutil.copytree(distilled, run)
    shutil.copytree(few, data)
    shutil.copytree(teacher, there)
    config = json.loads((run / "config.json").read_text())
    config["arguments"] |= {"data": str(tmp_path / "gone")}
    config["arguments"]["teacher"]["place"] = str(tmp_path / "lost")
    (run / "config.json").write_text(json.dumps(config))
    words = ("similarity", run, "--images", "8")
    refused = sskd(*words)
    assert refused.code == 2 and "There is no folder" in refused.err and "--data PLACE, --teacher PLACE" in refused.err
    assert f"There is no network at {tmp_path}/lost" in sskd(*words, "--data", data).err
    assert sskd(*words, "--data", data, "--teacher", there).code == 0
    assert "the data digits has 10" in sskd(*words, "--data", "digits", "--teacher", there).err
    assert "its weights are others" in sskd(*words, "--data", data, "--teacher", distilled).err
    (run / "checkpoint.pt").unlink()
    assert "checkpoint.pt is gone" in sskd(*words, "--data", data, "--teacher", there).out
    (data / "train.parquet").write_bytes((data / "test.parquet").read_bytes())
    assert "not those that the run was trained on" in sskd(*words, "--data", data, "--teacher", there).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("similarity", "nowhere"), "nowhere is no run directory"),
        (("similarity", "RUN", "--split", "validation"), None),
        (("similarity", "TEACHER/student"), "is no run directory"),
        (("inspect", "TEACHER", "--split", "validation"), "has no validation images; it has train, test"),
        (("inspect", "RUN", "--images", "0"), "at least 1; got 0"),
        (("similarity", "RUN", "--images", "3"), "at least 4"),
        (("probe", "RUN", "--data", "digits", "--validation", "0"), "validation must be above 0; got 0"),
        (("probe", "RUN/student/model.safetensors", "--data", "digits"), "--classes N"),
        (("probe", "nowhere", "--data", "digits"), "There is no network at nowhere"),
        (("probe", "TEACHER/student", "--side", "teacher", "--data", "digits"), "is no run directory"),
    ],
)
def test_refused(words: tuple[str, ...], message: str | None, distilled: Path, teacher: Path, sskd: Cli) -> None:
    done = sskd(*(word.replace("RUN", str(distilled)).replace("TEACHER", str(teacher)) for word in words))
    assert (done.code, message or "") == (2 if message else 0, message or "") and (message or "") in done.err


def test_unfinished(teacher: Path, few: Path, sskd: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(teacher, out, ignore=shutil.ignore_patterns("result.json", "student"))
    for command in ("similarity", "inspect"):
        assert "is not finished. Repeat its command" in sskd(command, out).err
    assert "is not finished" in sskd("probe", out, "--data", few).err


def test_probe(distilled: Path, few: Path, sskd: Cli, tmp_path: Path) -> None:
    done = sskd("probe", distilled, "--data", "digits", "--images", "200", "--seed", "3")
    assert done.code == 0, done.err
    assert "linear, penalty" in done.out and "test top-1" in done.out and "they are resized" in done.out
    found = kept(distilled, "probe-digits")
    protocol, linear = found["protocol"], found["linear"]
    counts = [protocol[f"{split}_images"] for split in ("training", "validation", "test")]
    assert counts == [200, 20, 200] and protocol["seed"] == 3 and protocol["dimensions"] == 64
    assert 0.2 < linear["top1"] <= 1 and 0.2 < found["knn"]["top1"] <= 1 and found["classes"] == 10
    scores = {one["penalty"]: one["validation_top1"] for one in linear["tried"]}
    assert scores[linear["regularisation"]] == linear["validation_top1"] == max(scores.values())
    assert linear["regularisation"] == max(p for p, score in scores.items() if score == max(scores.values()))
    again = probe(str(distilled), "digits", images=200, seed=3, out=str(tmp_path / "deep" / "again.json"))
    assert (again["linear"], again["knn"]) == (linear, found["knn"]) and (tmp_path / "deep/again.json").is_file()


def test_probe_of_a_teacher_and_of_bare_weights(distilled: Path, teacher: Path, few: Path, sskd: Cli) -> None:
    assert sskd("probe", distilled, "--side", "teacher", "--data", few).code == 0
    of_teacher = kept(distilled, "probe-few-teacher")
    settings = json.loads((teacher / "student" / "config.json").read_text())["pretrained_cfg"]
    norm = {key: tuple(settings[key]) for key in ("mean", "std")}
    weights = str(teacher / "student" / "model.safetensors")
    bare = probe(weights, str(few), architecture="cifar_resnet8", classes=3, **norm)  # type: ignore[arg-type]
    assert (bare["linear"], bare["knn"], bare["weights"]) == tuple(of_teacher[k] for k in ("linear", "knn", "weights"))


def test_probe_of_the_images_themselves(sskd: Cli, few: Path, tmp_path: Path) -> None:
    done = sskd("probe", "pixels", "--data", few, "--out", tmp_path / "pixels.json")
    assert done.code == 0 and "The images themselves, on few:" in done.out, done.err
    found = json.loads((tmp_path / "pixels.json").read_text())
    assert found["protocol"]["dimensions"] == 64 and found["linear"]["top1"] > 0.5 and found["weights"] is None


def test_probe_makes_colour_grey(distilled: Path, sskd: Cli, tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs", {"train": 16, "test": 4})
    done = sskd("probe", distilled, "--data", photographs, "--validation", "0.25")
    assert done.code == 0, done.err
    assert "they are made grey" in done.out
    channels = write_four_channels(tmp_path / "student", distilled)
    refused = sskd("probe", channels, "--data", photographs)
    assert refused.code == 2 and "takes images of 4 channels; the data has 3" in refused.err


def write_four_channels(folder: Path, run: Path) -> Path:
    """A network like the run's, of four channels."""
    import timm
    from safetensors.torch import save_file

    folder.mkdir()
    settings = json.loads((run / "student" / "config.json").read_text())
    settings["pretrained_cfg"] |= {"mean": [0.5] * 4, "std": [0.2] * 4, "input_size": [4, 8, 8]}
    settings["model_args"]["in_chans"] = 4
    (folder / "config.json").write_text(json.dumps(settings))
    model = timm.create_model("cifar_resnet8", num_classes=3, in_chans=4)
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder
