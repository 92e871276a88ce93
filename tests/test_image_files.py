"""Which files of a folder are taken: links, hidden files, other kinds, pipes; names that are no UTF-8."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from sskd.data import load_source
from sskd.data.images import Images
from sskd.errors import UserError
from sskd.reading import Reading
from tests.test_layout import counts, write


def notes(root: Path) -> str:
    return "\n".join(load_source(str(root)).notes)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    root = write(tmp_path / "data", "cat", "dog", count=5)
    write(tmp_path / "elsewhere", ".", count=5)
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "again").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "back").symlink_to(root)
    (root / "dog" / "itself").symlink_to("itself")
    (root / "dog" / "gone.png").symlink_to("nowhere.png")
    assert counts(root)[1] == [12, 0, 3]
    said = notes(root)
    assert "Links to folders were followed: cat/again" in said
    assert "Left out, links to folders that were searched already or that contain them: cat/back, cat/more" in said
    assert "broken links): dog/gone.png" in said


def test_a_linked_class_folder(tmp_path: Path) -> None:
    root = write(tmp_path / "data", "cat", count=5)
    write(tmp_path / "dogs", ".", count=5)
    (root / "dog").symlink_to(tmp_path / "dogs")
    assert counts(root) == (("cat", "dog"), [8, 0, 2])


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    hidden = ("cat/.ipynb_checkpoints", "cat/@eaDir", "__MACOSX/cat", ".thumbs", "cat/deep/.cache/x")
    root = write(tmp_path, "cat", "dog", *hidden, count=5)
    (root / ".git" / "objects").mkdir(parents=True)
    (root / "cat" / "._0.png").write_bytes(b"resource fork")
    (root / "cat" / ".DS_Store").write_bytes(b"")
    assert counts(root) == (("cat", "dog"), [8, 0, 2])
    assert "Left out, hidden: .thumbs, __MACOSX, cat/._0.png, cat/.ipynb_checkpoints, cat/@eaDir and 1" in notes(root)


def test_hidden_class_folders_are_said_in_each_split(tmp_path: Path) -> None:
    hidden = (".old/x", "train/.ipynb_checkpoints", "test/@eaDir")
    root = write(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog", *hidden)
    assert counts(root) == (("cat", "dog"), [4, 0, 4])
    assert "Left out, hidden: .old, train/.ipynb_checkpoints, test/@eaDir." in notes(root)


def test_a_class_named_with_underscores(tmp_path: Path) -> None:
    assert counts(write(tmp_path, "__none__", "cat", "_other", count=5)) == (("__none__", "_other", "cat"), [12, 0, 3])


def test_other_kinds_are_counted_and_named(tmp_path: Path) -> None:
    root = write(tmp_path, "cat", "dog", count=5)
    for name in ("a.heic", "b.HEIC", "c.svg", "notes"):
        (root / "cat" / name).write_bytes(b"x")
    Image.new("RGB", (8, 8)).save(root / "loose.png")
    said = notes(root)
    assert "no images of a kind that can be read: 2 .heic, 1 .svg, 1 without an extension." in said
    assert "1 images lie in no class folder and are left out, first loose.png" in said
    for file in root.glob("*/*.png"):
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(UserError, match=r"There are no images .*other files: 12 \.heic.*convert those"):
        load_source(str(root))


@pytest.mark.parametrize(("extension", "kind"), [("jfif", "JPEG"), ("JPE", "JPEG"), ("avif", "AVIF"), ("pnm", "PPM")])
def test_kinds_that_pillow_reads(extension: str, kind: str, tmp_path: Path) -> None:
    root = write(tmp_path, "cat", "dog", count=5)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(root / "dog" / f"red.{extension}", format=kind)
    assert counts(root)[1] == [9, 0, 2]


def test_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    root = write(tmp_path, "cat", "dog", count=5)
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "dog" / "endless.png").symlink_to("/dev/zero")
    assert counts(root)[1] == [8, 0, 2]
    assert "pipes, devices, broken links): cat/pipe.png, dog/endless.png" in notes(root)
    os.mkfifo(root / "train-0.tar")
    os.mkfifo(root / "train.parquet")
    assert counts(root)[1] == [8, 0, 2]


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    root = write(tmp_path, "cat", "dog", count=5)
    Image.new("RGB", (90, 80)).save(root / "cat" / os.fsdecode(b"caf\xe9.png"))
    source = load_source(str(root))
    assert len(source.train.fingerprint()) == 64
    names = [source.train.name(i) for i in range(len(source.train))]  # type: ignore[union-attr]
    assert any(name.endswith(r"caf\xe9.png") for name in names)
    (root / "cat" / os.fsdecode(b"\xe9.png")).write_bytes(b"no image")
    skipping = load_source(str(root), Reading(unreadable="skip"))
    "\n".join(skipping.notes).encode()
    write(root, os.fsdecode(b"gar\xe7on"))
    with pytest.raises(UserError, match=r"The class gar\\xe7on .* is no UTF-8\. Rename it"):
        load_source(str(root))


def test_decoded_images_keep_their_names(tmp_path: Path) -> None:
    source = load_source(str(write(tmp_path, "cat", "dog", count=5)))
    assert isinstance(source.train, Images) and isinstance(source.test, Images)
    names = {images.name(i) for images in (source.train, source.test) for i in range(len(images))}
    assert names == {str(tmp_path / kind / f"{i}.png") for kind in ("cat", "dog") for i in range(5)}
    second = source.train.take(torch.tensor([1])).reduced(4)
    assert second.name(0) == source.train.name(1)


def test_names_that_differ_in_case_alone_are_said(tmp_path: Path) -> None:
    root = write(tmp_path, "Cat", "cat", "dog", "01", "1", count=5)
    assert counts(root) == (("01", "1", "Cat", "cat", "dog"), [20, 0, 5])
    assert "'01' and '1', 'Cat' and 'cat' are classes of their own, though they differ in case" in notes(root)


def test_a_class_without_a_readable_image(tmp_path: Path) -> None:
    root = write(tmp_path, "cat", "dog", "emu", count=5)
    for file in (root / "emu").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"5 of 15 .*cannot be decoded"):
        load_source(str(root))
    with pytest.raises(UserError, match=r"'emu' \(0 images\).*What was read: .*Skipped 5 of 15 train images: .*emu/0"):
        load_source(str(root), Reading(unreadable="skip"))


def test_numbers_out_of_order_are_said(tmp_path: Path) -> None:
    said = notes(write(tmp_path, "1", "2", "10", count=5))
    assert "Classes are numbered in the text order of the class folders, so class 1 is 10, not 2" in said
    assert "--reading.classes" in said
    again = load_source(str(tmp_path), Reading(classes=("1", "2", "10")))
    assert again.class_names == ("1", "2", "10")
