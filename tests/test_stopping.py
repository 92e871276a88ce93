"""SIGTERM: a training saves and ends, all else ends at once; what people are told is true of their command."""

import copy
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sskd.cli.ending import ended, stopped
from sskd.cli.main import main
from sskd.methods import METHODS
from sskd.stopping import Terminated, handling_sigterm, saving_on_sigterm, stop_requested
from sskd.train import loop
from sskd.train.optim import learning_rate
from tests.trainers import Kept, build, equal


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Other tests may have left a handler: Ray's ends the process."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def terminate(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("step", "place"), [(1, (0, 1)), (2, (1, 0)), (3, (1, 1))])
def test_a_training_saves_and_goes_on_from_there(
    step: int, place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, and at its end after the evaluation."""
    whole, calls = Kept(), [0]
    build(METHODS["kd"], kept=whole, epochs=2).fit()

    def rate(*given: Any) -> float:
        calls[0] += 1
        if calls[0] == step:
            terminate()
        return learning_rate(*given)

    stopped_there = Kept()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate", rate)
        with pytest.raises(Terminated):
            build(METHODS["kd"], kept=stopped_there, epochs=2).fit()
    state = stopped_there.saved[-1]
    assert (state["epoch"], state["part"]["steps"]) == place
    rest = Kept(copy.deepcopy(state))
    build(METHODS["kd"], kept=rest, epochs=2).fit()
    for name, values in whole.saved[-1]["modules"].items():
        assert equal(rest.saved[-1]["modules"][name], values)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_noted_once_while_something_is_saved() -> None:
    with handling_sigterm():
        with pytest.raises(Terminated), saving_on_sigterm():
            terminate()
            assert stop_requested()
        assert not stop_requested()
        with pytest.raises(Terminated), saving_on_sigterm():
            terminate()
            terminate()  # the second time it ends at once
        with pytest.raises(Terminated):
            terminate()  # there is nothing to save


def test_handlers_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[int]()
    own = signal.signal(signal.SIGTERM, lambda number, _: said.append(number))
    try:
        with saving_on_sigterm():
            terminate()
            assert not stop_requested()
        assert said == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, own)
    monkeypatch.setenv("WORLD_SIZE", "2")  # torchrun ends those that wait for a lost process by it
    with saving_on_sigterm():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_nothing_is_handled_in_threads() -> None:
    seen = list[Any]()

    def inside() -> None:
        with saving_on_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@pytest.mark.parametrize(
    ("words", "then"),
    [
        (["distill"], "the same command continues from the last checkpoint, if one was written."),
        (["study", "few-labels"], "the same command continues from the last checkpoint, if one was written."),
        (["report", "--live"], "the report stays as it was last written."),
        (["evaluate"], "the same command begins anew."),
    ],
)
@pytest.mark.parametrize(("error", "how", "status"), [(KeyboardInterrupt, "interrupted", 130),
                                                      (Terminated, "ended by SIGTERM", 143)])  # fmt: skip
def test_what_is_said(
    words: list[str],
    then: str,
    error: Any,
    how: str,
    status: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr("sskd.cli.main._loaded", stop)
    assert main(words) == status
    assert capsys.readouterr().err == f"sskd: {how}; {then}\n" == f"{stopped(words[0], how)}\n"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            OSError(28, "No space left on device"),
            2,
            "sskd: the output could not be written: No space left on device.\n",
        ),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_output_that_nobody_takes(error: OSError, status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(0, error) == status
    assert ended(130, error) == 130
    assert capsys.readouterr().err == 2 * said


def in_a_process(code: str, **streams: Any) -> "subprocess.CompletedProcess[str]":
    """With a buffered stdout, of which the end is written last."""
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, env=environment, **streams)


def test_interrupted_while_it_imports() -> None:
    stop = "class Stop:\n def find_spec(self, name, *_):\n  if name == 'jsonargparse': raise KeyboardInterrupt"
    run = "sys.meta_path.insert(0, Stop())\nfrom sskd.__main__ import main\nsys.exit(main())"
    done = in_a_process(f"import sys\n{stop}\n{run}")
    assert (done.returncode, done.stderr) == (130, "sskd: interrupted.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_under_stdout() -> None:
    with Path("/dev/full").open("w") as full:
        done = in_a_process("import sys; from sskd.cli.ending import ended; print(3); sys.exit(ended(0))", stdout=full)
    assert (done.returncode, done.stderr) == (2, "sskd: the output could not be written: No space left on device.\n")


def test_a_closed_pipe_under_stdout() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = in_a_process("import sys; from sskd.cli.ending import ended; print(3); sys.exit(ended(0))", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
