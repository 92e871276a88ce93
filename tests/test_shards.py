"""Tar shards as WebDataset writes them."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from sskd.data import load_source, shards
from sskd.data.pictures import Pictures
from sskd.data.tar_contents import Contents, read_contents
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
    refused(
        r"has no 'kind' \(neither KEY\.kind nor a field of KEY\.json\) for 3 of its 3 images", Reading(label="kind")
    )
    whole = (tmp_path / "train-0.tar").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(b"x" * 600 + whole[600:])
    refused(r"train-0\.tar is not a whole tar file")
    write(tmp_path / "train-0.tar", samples(3))
    (tmp_path / "classes.txt").write_text("red\ngreen\n")
    refused(r"a/0002\.png of .* has the label '2', none of the 2 classes")


def labelled(tmp_path: Path, **contents: Callable[[int], bytes]) -> Path:
    """Six training and three test images with a member KEY.EXTENSION for each of the contents."""
    for split, count in (("train", 6), ("test", 3)):
        members: dict[str, bytes] = {}
        for i in range(count):
            members[f"{i:04}.png"] = encoded(COLOURS[i % 3], 10 + i)
            members |= {f"{i:04}.{extension}": content(i) for extension, content in contents.items()}
        write(tmp_path / f"{split}-0.tar", members)
    return tmp_path


def number(i: int) -> bytes:
    return str(i % 3).encode()


def field(value: Callable[[int], object]) -> Callable[[int], bytes]:
    return lambda i: json.dumps({"label": value(i), "url": "u"}).encode()


def classes(folder: Path, reading: Reading = Reading()) -> tuple[tuple[str, ...], list[int]]:  # noqa: B008  # frozen
    train = load_source(str(folder), reading).train
    return load_source(str(folder), reading).class_names, train.labels.tolist()


def test_cls_comes_before_captions_and_metadata(tmp_path: Path) -> None:
    numbers = (("0", "1", "2"), [0, 1, 2, 0, 1, 2])
    folder = labelled(tmp_path, txt=lambda i: b"a caption %d" % i, cls=number, json=lambda _: b'{"url": "u"}')
    assert classes(folder) == numbers == classes(folder, Reading(label="cls"))
    assert (
        "labels are read from .cls, not from .txt; for these say --reading.label txt"
        in load_source(str(folder)).notes[1]
    )
    texts = labelled(tmp_path / "texts", txt=lambda i: COLOURS[i % 3].encode(), cls=number)
    assert classes(texts, Reading(label="txt")) == (("blue", "green", "red"), [2, 1, 0, 2, 1, 0])
    assert classes(labelled(tmp_path / "damaged", cls=number, json=lambda _: b"[" * 100_000)) == numbers


def test_a_tar_of_class_folders(tmp_path: Path) -> None:
    images = {f"pets/{name}/{i}.png": encoded("red", 10 + i) for name in ("cat", "dog") for i in range(3)}
    write(tmp_path / "train-0.tar", images)
    with pytest.raises(UserError, match=r"no label for 6 of its 6 .*classes \(pets/cat, pets/dog\): unpack it"):
        load_source(str(tmp_path))
    labels = {name.replace("png", "cls"): b"%d" % ("dog" in name) for name in images}
    write(tmp_path / "train-0.tar", images | labels)
    assert sorted(classes(tmp_path)[1]) == [0, 0, 1, 1]


def test_captions_alone_are_asked_about(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "captions", txt=lambda i: b"a caption %d" % i)
    with pytest.raises(
        UserError, match=r"labels in \.txt: 6 training .* have 6 different .*; else name another"
    ) as told:
        load_source(str(folder))
    assert "'a caption 0' and 'a caption 1'" in str(told.value) and "say --reading.label txt" in str(told.value)
    assert classes(folder, Reading(label="txt"))[1] == [0, 1, 2, 3, 4, 5]
    nearly = labelled(tmp_path / "nearly", json=field(lambda i: f"name {min(i, 4)}"))
    with pytest.raises(UserError, match=r"6 training images have 5 different .* say --reading\.label label"):
        load_source(str(nearly))
    four = labelled(tmp_path / "four", txt=lambda i: b"name %d" % min(i, 3))
    assert classes(four)[1] == [0, 1, 2, 3, 3, 3]
    (folder / "classes.txt").write_text("\n".join(f"a caption {i}" for i in range(6)))
    assert classes(folder)[1] == [0, 1, 2, 3, 4, 5]


def test_two_places_of_labels_are_asked_about(tmp_path: Path) -> None:
    folder = labelled(tmp_path, txt=lambda i: COLOURS[i % 3].encode(), json=field(lambda i: i % 3))
    with pytest.raises(UserError, match=r"has \.txt and field label of \.json for each image, .*label (txt|label) or"):
        load_source(str(folder))
    assert classes(folder, Reading(label="label"))[0] == classes(folder, Reading(label="json"))[0] == ("0", "1", "2")
    assert classes(folder, Reading(label="txt"))[0] == ("blue", "green", "red")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"json": field(lambda i: None if i == 3 else "cat")}, r"1 of 6 images have no label .*: 0003\.png \(null\)"),
        ({"json": field(lambda i: [0, 1] if i % 2 else 1)}, r"3 of 6 .*0001\.png \(a list\), 0003\.png \(a list\)"),
        ({"json": field(lambda _: True)}, r"6 of 6 .*\(true or false\).* and 1 more"),
        ({"json": field(lambda _: 0.5)}, r"6 of 6 .*\(0\.5\)"),
        ({"json": lambda _: b"[" * 100_000}, r"6 of 6 .*\(JSON that is nested too deeply\)"),
        ({"json": lambda _: b"{"}, r"6 of 6 .*\(no JSON\)"),
        ({"cls": lambda i: b" \n" if i == 2 else b"1"}, r"1 of 6 .*0002\.png \(an empty text\)"),
        ({"cls": lambda i: b"[0, 1]" if i else b"1"}, r"5 of 6 .*\(a list\)"),
        ({"cls": lambda _: b"\xff\xfe"}, r"6 of 6 .*\(no UTF-8 text\)"),
        ({"txt": lambda _: b"long " * 1000}, r"6 of 6 .*\(a text of 5,000 bytes\)"),
        (
            {"cls": lambda i: b"2000000000" if i else b"0"},
            r"go up to 2000000000, but there are only 6 training .*classes\.txt",
        ),
        ({"cls": lambda i: b"-1" if i == 1 else b"1"}, r"has the label -1; labels number the classes from 0"),
        ({"cls": lambda i: b"01" if i else b"1"}, r"with and without leading zeros"),
    ],
)
def test_labels_that_are_none(content: dict[str, Callable[[int], bytes]], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_source(str(labelled(tmp_path, **content)))


def test_labels_of_digits_that_are_names(tmp_path: Path) -> None:
    assert classes(labelled(tmp_path, cls=lambda i: b"00%d" % (5 * (i % 3))))[0] == ("000", "0010", "005")
    source = load_source(str(labelled(tmp_path, cls=lambda i: (b"None", b"a", b"b")[i % 3])))
    assert source.class_names == ("None", "a", "b")
    assert "'None' among the labels is taken as a class, not as a missing label." in source.notes


def test_hidden_members_links_and_other_kinds(tmp_path: Path) -> None:
    folder = labelled(tmp_path, cls=number, heic=lambda _: b"x")
    with tarfile.open(folder / "train-0.tar", "a") as archive:
        for name in ("__MACOSX/9999.png", ".cache/1.png", "._0000.png"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("8888.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0000.png"
        archive.addfile(link)
    source = load_source(str(folder))
    assert len(source.train) == 6
    assert any("members that are not used: 6 .heic" in note for note in source.notes)
    assert any("4 hidden members or links were left out" in note for note in source.notes)


def test_two_images_under_one_key_are_asked_about(tmp_path: Path) -> None:
    folder = labelled(tmp_path, cls=number, jpg=lambda i: encoded(COLOURS[i % 3], 10 + i))
    with pytest.raises(
        UserError, match=r"two images 0000\.png and \.jpg.*--reading\.image png or --reading\.image jpg"
    ):
        load_source(str(folder))
    assert len(load_source(str(folder), Reading(image="png")).train) == 6


def test_names_of_shards(tmp_path: Path) -> None:
    folder = labelled(tmp_path, cls=number)
    (folder / "train-0.tar").rename(folder / "data-TRAIN-0.tar")
    (folder / "test-0.tar").rename(folder / "data-Validation-0.tar")
    (folder / "._data-train-0.tar").write_bytes(b"x")
    source = load_source(str(folder))
    assert [len(source.train), len(source.test)] == [6, 3]
    write(folder / "extra-0.tar", samples(3))
    assert "not used: extra-0.tar" in load_source(str(folder)).notes[0]
    (folder / "data-TRAIN-0.tar").unlink()
    with pytest.raises(UserError, match="has no training shards among"):
        load_source(str(folder))


def test_compressed_shards_are_refused(tmp_path: Path) -> None:
    folder = labelled(tmp_path, cls=number)
    whole = folder / "train-0.tar"
    whole.write_bytes(gzip.compress(whole.read_bytes()))
    with pytest.raises(UserError, match=r"train-0\.tar is not a whole tar file .*It is compressed: unpack it first"):
        load_source(str(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [("red\n\nblue\n", "has an empty line, number 2"), ("red\nred\nblue", "names the class 'red' twice")],
)
def test_class_lists_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    folder = labelled(tmp_path, cls=number)
    (folder / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        load_source(str(folder))


def test_what_lies_in_large_shards_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a shard changes, or what was kept is damaged."""
    monkeypatch.setenv("SSKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "SMALL", 0)
    read = list[int]()

    def counted(tars: Sequence[Path], reading: Reading) -> Contents:
        read.append(len(tars))
        return read_contents(tars, reading)

    monkeypatch.setattr(shards, "read_contents", counted)
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
