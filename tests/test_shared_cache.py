"""The cache of what students share: kept whole, told apart, made anew where it is damaged, trained by one at a time."""

import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sskd.content_hash import content_hash
from sskd.data.source import DataInfo
from sskd.errors import UserError
from sskd.jobs.assemble import pair_of
from sskd.methods import METHODS
from sskd.methods.logits import KDLoss
from sskd.methods.parts import LossTerm
from sskd.methods.plan import Optim, Stage, Term
from sskd.models.network import create_network
from sskd.models.normalisation import Normalisation
from sskd.runs import SharedCache
from tests.interruption import flipped

SCALE = Normalisation((0.5,) * 3, (0.2,) * 3, "the test")


class Nothing(Term):
    pass


def stage(**change: Any) -> Stage:
    loss, trains, optim = {"head": (1.0, Nothing())}, ("teacher_head",), Optim(lr=0.1)
    settings: dict[str, Any] = {"loss": loss, "trains": trains, "epochs": 3, "optim": optim}
    return Stage(name="head", shared=True, **(settings | change))


def test_cache_gives_back_what_it_was_given(tmp_path: Path) -> None:
    cache = SharedCache(tmp_path / "cache", {"teacher": "abc"}, tmp_path)
    assert cache.find(stage()) is None
    states = {"teacher_head": {"0.weight": torch.randn(3, 2), "0.bias": torch.randn(3)}}
    path = cache.keep(stage(), states, {"epoch": 3})
    found = cache.find(stage())
    assert found is not None
    assert found[0] == path
    assert found[1].keys() == states.keys()
    for name, value in states["teacher_head"].items():
        assert torch.equal(found[1]["teacher_head"][name], value)
    assert set(load_file(path)) == {"teacher_head/0.weight", "teacher_head/0.bias"}
    header = path.read_bytes()[8:].split(b"}}", 1)[0].decode()
    assert "abc" in header, "the recipe can be read off the file"


@pytest.mark.parametrize(
    ("address", "change"),
    [
        ({"teacher": "other"}, {}),
        ({"teacher": "abc", "data": "more"}, {}),
        ({"teacher": "abc"}, {"epochs": 4}),
        ({"teacher": "abc"}, {"optim": Optim(lr=0.2)}),
        ({"teacher": "abc"}, {"optim": Optim(lr=0.1, milestones=(0.5,))}),
        ({"teacher": "abc"}, {"loss": {"head": (2.0, Nothing())}}),
    ],
)
def test_cache_tells_recipes_apart(address: dict[str, str], change: dict[str, Any], tmp_path: Path) -> None:
    SharedCache(tmp_path, {"teacher": "abc"}, tmp_path).keep(stage(), {"teacher_head": {"w": torch.zeros(1)}}, {})
    assert SharedCache(tmp_path, {"teacher": "abc"}, tmp_path).find(stage()) is not None
    assert SharedCache(tmp_path, address, tmp_path).find(stage(**change)) is None


def test_damaged_cache_counts_as_none(tmp_path: Path) -> None:
    """Wherever a bit is flipped; what is made anew is what was there."""
    said = list[str]()
    cache = SharedCache(tmp_path, {}, tmp_path, said.append)
    states = {"teacher_head": {"w": torch.arange(9.0), "b": torch.ones(2)}}
    path = cache.keep(stage(), states, {"epoch": 3})
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    assert cache.find(stage()) is None
    generator, anew = random.Random(0), 0
    for at in [*range(8), *(generator.randrange(8, len(whole)) for _ in range(60))]:
        path.write_bytes(flipped(whole, at, 1 << generator.randrange(8)))
        said.clear()
        found = cache.find(stage())
        if found is not None:  # the name of the hash was hit, and nothing else
            assert content_hash(found[1]) == content_hash(states), at
            continue
        anew += 1
        assert f"{path} is damaged (" in said[-1] and "it is made anew" in said[-1]
    assert anew >= 60
    cache.keep(stage(), states, {"epoch": 3})
    found = cache.find(stage())
    assert found is not None and content_hash(found[1]) == content_hash(states)


def test_a_cached_stage_of_another_recipe_counts_as_none(tmp_path: Path) -> None:
    said = list[str]()
    cache = SharedCache(tmp_path, {}, tmp_path, said.append)
    other = cache.keep(stage(epochs=4), {"teacher_head": {"w": torch.zeros(9)}}, {})
    other.rename(cache.path(stage()))
    assert cache.find(stage()) is None and "is of another recipe" in said[0]


def test_a_cached_stage_of_the_first_releases(tmp_path: Path) -> None:
    """They wrote no hash."""
    cache = SharedCache(tmp_path, {}, tmp_path)
    save_file({"teacher_head/w": torch.ones(2)}, cache.path(stage()), {"recipe": json.dumps(cache.recipe(stage()))})
    found = cache.find(stage())
    assert found is not None and found[1]["teacher_head"]["w"].tolist() == [1.0, 1.0]


def test_a_folder_in_the_place_of_a_cached_stage(tmp_path: Path) -> None:
    """Refused before the stage is trained, which it would be for nothing."""
    cache = SharedCache(tmp_path, {}, tmp_path)
    cache.path(stage()).mkdir()
    with pytest.raises(UserError, match="is no file, and the cache would write one there"):
        cache.find(stage())


def test_two_students_may_keep_the_same_head_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (SharedCache(tmp_path, {}, Path(run)) for run in ("one", "other"))
    fsync, calls = os.fsync, [0]
    states = {"teacher_head": {"w": torch.arange(9.0)}}

    def interleaved(descriptor: int) -> None:
        """While the first is writing, the other begins and ends."""
        calls[0] += 1
        if calls[0] == 1:
            other.keep(stage(), states, {"by": "the other"})
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interleaved)
    path = one.keep(stage(), states, {"by": "the first"})
    assert calls == [2]
    assert list(tmp_path.iterdir()) == [path]
    found = other.find(stage())
    assert found is not None
    assert torch.equal(found[1]["teacher_head"]["w"], torch.arange(9.0))


# the epoch that is kept


def test_one_trains_a_head_and_the_others_wait(tmp_path: Path) -> None:
    """Cells of a grid that begin together share one head."""
    caches = [SharedCache(tmp_path / "cache", {"teacher": "a"}, tmp_path / name) for name in "ab"]
    trained, said, began = list[str](), list[str](), threading.Event()

    def cell(cache: SharedCache, name: str) -> None:
        with cache.hold(stage(), said.append):
            began.set()
            if cache.find(stage()) is None:
                time.sleep(0.3)
                trained.append(name)
                cache.keep(stage(), {"teacher_head": {"weight": torch.ones(2)}}, {})

    first = threading.Thread(target=cell, args=(caches[0], "a"))
    first.start()
    began.wait()
    cell(caches[1], "b")
    first.join()
    assert trained == ["a"] and len(said) == 1 and "another run is training it; waiting for" in said[0]


def test_recipe_holds_what_a_term_was_built_with(tmp_path: Path) -> None:
    """Two terms that look alike as modules, but have another rate."""
    cache = SharedCache(tmp_path, {}, tmp_path / "run")
    paths = set()
    for rate in (0.5, 0.75):
        term = Nothing()
        term.rate = rate  # type: ignore[assignment]
        paths.add(cache.path(stage(loss={"head": (1.0, term)})))
    assert len(paths) == 2


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("sskd", "head-a771e6878066c99c.safetensors"),
        ("ft", "paraphraser-c25b0592f2b26155.safetensors"),
        ("hsakd", "branches-152ef6405e0eaa37.safetensors"),
    ],
)
def test_keys_of_the_methods_stay(method: str, key: str, tmp_path: Path) -> None:
    """What earlier versions kept is found again."""
    student, teacher = (create_network("cifar_resnet8", ("a", "b"), (3, 32, 32), SCALE) for _ in range(2))
    labels = torch.arange(8) % 2
    pair = pair_of(student, teacher, DataInfo("x", 8, ("a", "b"), labels, SCALE.mean, SCALE.std, (3, 32, 32)))
    first = METHODS[method](pair, epochs=8, optim=Optim(lr=0.1)).stages[0]
    assert first.shared
    assert SharedCache(tmp_path, {"teacher": "abc"}, tmp_path).path(first).name == key


def test_recipe_holds_what_a_term_s_loss_was_built_with(tmp_path: Path) -> None:
    """Of a loss that says nothing of itself, at any depth."""
    cache = SharedCache(tmp_path, {}, tmp_path / "run")
    terms = [LossTerm(nn.Sequential(KDLoss(temperature)), ("logits", "logits")) for temperature in (2.0, 4.0)]
    paths = {cache.path(stage(loss={"head": (1.0, term)})) for term in terms}
    assert len(paths) == 2
