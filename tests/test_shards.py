"""Tar shards as WebDataset writes them."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from sskd.data import load_source, shards
from sskd.data.pictures import Pictures
from sskd.errors import UserError
from sskd.reading import Reading

COLOURS = ["red", "green", "blue"]


def encoded(colour: str, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side + 1), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def write(tar: Path, members: dict[str, bytes]) -> None:
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def samples(count: int, extension: str = "cls", first: int = 0) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for i in range(first, first + count):
        label = {
            "cls": str(i % 3),
            "txt": COLOURS[i % 3],
            "json": json.dumps({"label": i % 3, "colour": COLOURS[i % 3]}),
        }
        members[f"a/{i:04}.png"] = encoded(COLOURS[i % 3], 10 + i)
        members[f"a/{i:04}.{extension}"] = label[extension].encode()
    return members


@pytest.mark.parametrize("extension", ["cls", "txt", "json"])
def test_shards(extension: str, tmp_path: Path) -> None:
    write(tmp_path / "train-000.tar", samples(4, extension))
    write(tmp_path / "train-001.tar", samples(5, extension, 4))
    write(tmp_path / "val-000.tar", samples(3, extension))
    source = load_source(str(tmp_path))
    names = ("blue", "green", "red") if extension == "txt" else ("0", "1", "2")
    assert source.class_names == names
    assert [len(source.train), len(source.test)] == [9, 3]
    assert "2 training and 1 test shards" in source.notes[0]
    train = source.train
    assert isinstance(train, Pictures)
    for i in (0, 3, 4, 8):
        image = train.open(i)
        assert image.size == (10 + i, 11 + i)
        expected = COLOURS.index(names[int(train.labels[i])]) if extension == "txt" else int(train.labels[i])
        assert expected == i % 3 and image.getpixel((0, 0)) == Image.new("RGB", (1, 1), COLOURS[i % 3]).getpixel((0, 0))
    assert train.reader.name(4).startswith("a/0004.png of ")


def test_names_and_fields(tmp_path: Path) -> None:
    write(tmp_path / "part-0.tar", samples(6, "json"))
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    source = load_source(f"shards:{tmp_path}", Reading(label="colour", test_share=0.5))
    assert source.class_names == ("red", "green", "blue")
    assert sorted(source.train.labels.tolist()) == [0, 1, 2] == sorted(source.test.labels.tolist())


def test_shards_that_are_refused(tmp_path: Path) -> None:
    def refused(message: str, reading: Reading = Reading()) -> None:  # noqa: B008  # frozen
        with pytest.raises(UserError, match=message):
            load_source(f"shards:{tmp_path}", reading)

    refused("There are no tar files in .*; expected train-")
    write(tmp_path / "some-0.tar", samples(3))
    write(tmp_path / "some-1.tar", samples(3))
    refused(r"has no training shards among some-0\.tar, some-1\.tar; expected train-")
    write(tmp_path / "train-0.tar", {key: value for key, value in samples(3).items() if key != "a/0001.cls"})
    refused(r"train-0\.tar has no label for 1 of its 3 images, first a/0001: expected a/0001\.cls")
    write(tmp_path / "train-0.tar", samples(3, "json"))
    refused(r"a label in it is damaged \(no field 'kind' in its JSON\)", Reading(label="kind"))
    whole = (tmp_path / "train-0.tar").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(b"x" * 600 + whole[600:])
    refused(r"train-0\.tar is not a whole tar file")
    write(tmp_path / "train-0.tar", samples(3))
    (tmp_path / "classes.txt").write_text("red\ngreen\n")
    refused(r"a/0002\.png of .* has the label '2', none of the 2 classes")


def test_what_lies_in_large_shards_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a shard changes, or what was kept is damaged."""
    monkeypatch.setenv("SSKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "SMALL", 0)
    read, honest = list[int](), shards._read

    def counted(tars: Sequence[Path], reading: Reading) -> shards.Contents:
        read.append(len(tars))
        return honest(tars, reading)

    monkeypatch.setattr(shards, "_read", counted)
    data = tmp_path / "data"
    write(data / "train-000.tar", samples(4))
    write(data / "train-001.tar", samples(5, first=4))
    write(data / "val-000.tar", samples(3))

    def loaded() -> tuple[list[int], list[bytes | None]]:
        train = load_source(str(data)).train
        assert isinstance(train, Pictures)
        return train.labels.tolist(), [train.reader.read(i) for i in range(len(train))]

    first = loaded()
    assert loaded() == first and read == [2, 1]
    write(data / "train-001.tar", samples(6, first=4))
    assert len(loaded()[0]) == 10 and read == [2, 1, 2]
    for kept in (tmp_path / "cache").glob("*.json"):
        kept.write_bytes(kept.read_bytes().replace(b"0000.png", b"0001.png"))
    assert len(loaded()[0]) == 10 and read == [2, 1, 2, 2, 1]
