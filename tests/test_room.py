"""Where memory runs out, fewer images are run at a time: alone, and as several processes agree."""

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor

import sskd
from sskd.data.feed import Share
from sskd.environment import processor
from sskd.errors import UserError
from sskd.jobs import room
from sskd.jobs.machine import asked, own_device, resumed
from sskd.methods import METHODS
from sskd.methods.plan import Outputs
from sskd.models.taps import Tapped
from sskd.runs import Run
from sskd.settings import Training
from sskd.train.averaging import Averaging
from sskd.train.checkpoint import save_checkpoint
from sskd.train.distributed import World
from sskd.train.loop import StageRun
from sskd.train.rehearsal import rehearse
from sskd.train.step import Execution, Losses, Step
from sskd.views.pretext import Batch
from tests.conftest import Cli
from tests.interruption import assert_refused
from tests.processes import together
from tests.trainers import SHAPE, SIZE, build, states


def limited_to(most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """More than `most` images at a time do not fit. Of each step: how many failed ones' values are still there."""
    at_once, made, kept = Step._at_once, list["ref[Tensor]"](), list[int]()

    def limited(self: Step, tapped: Tapped, images: Tensor) -> Outputs:
        kept.append(sum(one() is not None for one in made))
        if len(images) > most:
            activations = images + 1
            made.append(ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return at_once(self, tapped, images)

    monkeypatch.setattr(Step, "_at_once", limited)
    return kept


def test_memory_that_runs_out(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on with fewer images at a time, also in evaluation, and says so."""
    words = ("--method", "kd", "--epochs", "1")
    with monkeypatch.context() as patch:
        kept = limited_to(9, patch)
        done = distil("--out", tmp_path / "run", *words)
    assert done.code == 0, done
    assert "Memory ran out with 20 images at a time, 1 views each (CUDA out of memory." in done.out
    assert "From here on 5 are run at a time" in done.out and not any(kept)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["execution"]["micro_batch"] == 5
    asked = distil("--out", tmp_path / "asked", *words, "--micro_batch", "5")
    weights = [json.loads((tmp_path / run / "result.json").read_text())["weights"] for run in ("run", "asked")]
    assert asked.code == 0 and weights[0] == weights[1]


def test_a_precision_that_fits_where_another_does_not(
    distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = Step._at_once

    def limited(self: Step, tapped: Tapped, images: Tensor) -> Outputs:
        if self.execution.precision == "fp32":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return at_once(self, tapped, images)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "_at_once", limited)
        done = distil("--out", tmp_path / "run", "--method", "kd", "--epochs", "1", "--precision", "auto")
    assert done.code == 0, done
    execution = json.loads((tmp_path / "run" / "config.json").read_text())["execution"]
    assert (execution["precision"], execution["micro_batch"]) == ("bf16", 0)


def test_one_of_several_runs_out_in_the_midst(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can reach nobody: the message says what to add, and with it the run goes on."""
    words: Any = ("--out", tmp_path / "run", "--method", "kd", "--epochs", "3")
    with monkeypatch.context() as patch:
        room = iter([True] * 4)  # an epoch of 3 steps, and one
        plain = Averaging.__call__

        def short(averaging: Averaging) -> None:
            if not next(room, False):
                patch.setattr("sskd.jobs.room.launched", lambda: Share(0, 2))
                raise torch.OutOfMemoryError("CUDA out of memory.")
            plain(averaging)

        patch.setattr(Averaging, "__call__", short)
        assert_refused(distil(*words), "The same command with --micro_batch 5 goes on from the last checkpoint")
    again = distil(*words, "--micro_batch", "5")
    assert again.code == 0, again
    assert "This run went so far with micro_batch 0; from here on it is 5." in again.out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["execution"]["micro_batch"] == 5
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 3
    for size in ("5", "4", "5"):  # what was asked for last counts, not what was asked for first
        monkeypatch.setattr("sskd.jobs.execute.Run.result", lambda _: None)
        assert distil(*words, "--micro_batch", size).code == 0
        assert json.loads((tmp_path / "run" / "config.json").read_text())["execution"]["micro_batch"] == int(size)


def test_memory_for_nothing(distil: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited_to(0, monkeypatch)
    refused = distil("--out", tmp_path / "run", "--method", "kd", "--epochs", "1")
    assert_refused(
        refused, "Memory ran out with 20 images at a time", "(CUDA out of memory.", "Not even a step with one"
    )


def second_is_short(few: str, teacher: str, out: str) -> list[float]:
    """The second of two processes has room for two images at a time."""
    at_once = Step._at_once

    def limited(self: Step, tapped: Tapped, images: Tensor) -> Outputs:
        if torch.distributed.get_rank() == 1 and len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return at_once(self, tapped, images)

    Step._at_once = limited  # type: ignore[method-assign]
    given: dict[str, Any] = {"precision": "fp32", "channels_last": False, "threads": 1, "tensorboard": False}
    given |= {"batch_size": 20, "validation": 0.0, "epochs": 1, "method": "kd", "batch_norm": "synchronised"}
    result = sskd.distill("cifar_resnet8", few, teacher=teacher, out=out, **given)
    return [result["last"]["loss"]["total"], result["last"]["test"]["top1"]]


def test_all_processes_agree_on_what_one_has_room_for(few: Path, teacher: Path, tmp_path: Path) -> None:
    """Of 10 images each, 5 are tried and 2 taken, before any message of a step is sent."""
    run = tmp_path / "run"
    first, second = together(second_is_short, 2, tmp_path, str(few), str(teacher), str(run))
    assert first == second
    assert json.loads((run / "config.json").read_text())["execution"]["micro_batch"] == 2


@pytest.mark.parametrize(("method", "images"), [("kd", 8192), ("sskd", SIZE)])
def test_an_evaluation_is_tried_as_large_as_it_will_be(
    method: str, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, sizes = build(METHODS[method], world=World(Share(0, 2), "global", "synchronised")), list[int]()

    def measured(self: Step, batch: Batch, teacher: Outputs | None = None) -> dict[str, Tensor]:
        sizes.append(len(batch.labels))
        return {}

    monkeypatch.setattr(Step, "measure", measured)
    rehearse(trainer, trainer.execution, SIZE, SHAPE)
    rehearse(trainer, replace(trainer.execution, micro_batch=2), SIZE, SHAPE)
    stages = len(trainer.plan.stages)
    assert sizes == [images] * stages + [2] * stages


def test_a_run_goes_on_on_the_kind_of_device_on_which_it_began() -> None:
    began = Execution()
    assert own_device(began, "cuda:0", World()) == began
    assert own_device(replace(began, device="cuda"), "cuda:1", World(Share(1, 2))).device == "cuda:1"
    with pytest.raises(UserError, match="began on cpu, and its 2 processes now are on cuda: with CUDA"):
        own_device(began, "cuda:1", World(Share(1, 2)))


@pytest.mark.parametrize("method", ["sskd", "crd", "ab"])
def test_what_is_tried_has_the_whole_batchs_values_and_leaves_no_trace(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, given = build(METHODS[method], world=World(Share(1, 2), "global", "synchronised")), list[tuple[str, int]]()
    before, state = states(StageRun(trainer, trainer.plan.stages[-1])), torch.get_rng_state()
    losses = Step.losses

    def seen(self: Step, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        given.extend((name, len(one[2].labels)) for name, one in self._given(student, teacher, batch).items())
        return losses(self, student, teacher, batch)

    monkeypatch.setattr(Step, "losses", seen)
    rehearse(trainer, trainer.execution, SIZE, SHAPE)
    terms = {name: term for stage in trainer.plan.stages for name, (_, term) in stage.loss.items()}
    assert {*given} == {(name, SIZE if term.relates else SIZE // 2) for name, term in terms.items()}
    after = states(StageRun(trainer, trainer.plan.stages[-1]))
    assert all(torch.equal(value, after[name][key]) for name, one in before.items() for key, value in one.items())
    assert torch.equal(state, torch.get_rng_state())


class Notes:
    """A display that keeps what is said."""

    def __init__(self) -> None:
        self.said = list[str]()

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("fits", [True, False])
def test_without_its_graph_a_whole_batch_is_tried_before_parts(fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ordinary steps change no statistics of batch norms; smaller parts do."""
    tried = list[Execution]()

    def stepped(option: Execution, *_: Any) -> None:
        tried.append(option)
        if not fits and not option.micro_batch:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(room, "stepped", stepped)
    monkeypatch.setattr(room, "_batch", lambda *_: 8)
    captured, display, nothing = Execution("cuda", compiled=True, captured=True), Notes(), SimpleNamespace()
    parts: Any = SimpleNamespace(plan=SimpleNamespace(views=SimpleNamespace(views=4)))
    found = room.smaller(nothing, parts, captured, room.NoRoom("why"), display)  # type: ignore[arg-type]
    assert found == (captured.eager if fits else replace(captured.eager, micro_batch=4)) == tried[-1]
    assert len(tried) == (1 if fits else 2)
    assert ("not replayed as a CUDA graph" if fits else "From here on 4 are run at a time") in display.said[0]


def test_a_run_goes_on_without_its_graph(tmp_path: Path) -> None:
    """As asked when it is resumed."""
    began, display = Execution("cpu", captured=True, threads=torch.get_num_threads()), Notes()
    run, training = Run(tmp_path), Training()
    run.start({"execution": asdict(began), "environment": {"processor": processor()}, "asked": asked(training)})
    assert resumed(run, training, "cpu", display) == began and not display.said  # type: ignore[arg-type]
    found = resumed(run, replace(training, captured=False), "cpu", display)  # type: ignore[arg-type]
    assert found == replace(began, captured=False)
    assert display.said == ["This run replayed CUDA graphs so far; from here on it does not."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("could not create a primitive", True),  # all four as libraries say it under a limit of the address space
        ("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried", True),
        ("std::bad_alloc", True),
        ("CUDA out of memory. Tried to allocate 2 GiB.", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_what_running_out_of_memory_looks_like(text: str, expected: bool) -> None:
    assert room.ran_out(RuntimeError(text)) is expected


def test_a_checkpoint_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's writer says something else, of which a user could make nothing."""

    class Full(io.BytesIO):
        def write(self, content: Any) -> int:
            if len(content) > 1000:
                raise MemoryError
            return super().write(content)

    monkeypatch.setattr("sskd.train.checkpoint.io.BytesIO", Full)
    with pytest.raises(MemoryError, match="a checkpoint could not be put together"):
        save_checkpoint(tmp_path / "checkpoint.pt", {"weights": torch.zeros(1000)})
    assert not list(tmp_path.iterdir())
