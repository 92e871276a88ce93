"""Which files in a folder are images: at any depth, links followed, hidden ones and other kinds left out and named."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from sskd.errors import UserError
from sskd.escaping import visible

IMAGE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2"),
    *((".avif",) if find_spec("PIL._avif") else ()),
)
# Folders that file managers, network drives and Python leave beside the images.
SYSTEM_FOLDERS = (
    *("__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
)
NAMED = 5  # files that a note names before it only counts them


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a data set: .ipynb_checkpoints, ._1.png, __MACOSX, @eaDir.

    Other names that begin with underscores may be classes, such as `__none__`.
    """
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


@dataclass
class Listing:
    """Images found so far, and what was left out or followed on the way. Paths are those below `root`."""

    root: Path
    hidden: list[str] = field(default_factory=list)  # folders, and files that are named like images
    other: Counter[str] = field(default_factory=Counter)  # files of other kinds, by extension
    irregular: list[str] = field(default_factory=list)  # pipes, devices, broken links
    loops: list[str] = field(default_factory=list)  # links to a folder that contains them or was searched already
    linked: list[str] = field(default_factory=list)  # links to folders, followed

    def images(self, folder: Path) -> list[str]:
        """The images in a folder at any depth, in order of their paths.

        Raises:
            UserError: a folder that cannot be read.
        """
        place = folder.resolve()
        return sorted(self._search(str(folder), {_identity(str(one)) for one in (place, *place.parents)}))

    def _search(self, folder: str, searched: set[tuple[int, int]]) -> Iterator[str]:
        waiting = [folder]
        while waiting:
            inner = list[str]()
            for entry in _entries(waiting.pop()):
                is_image = has_image_extension(entry.name)
                if is_hidden(entry.name):
                    if is_image or _is_folder(entry):
                        self.hidden.append(self._below(entry))
                elif _is_folder(entry):
                    if (identity := _identity(entry.path)) in searched:
                        self.loops.append(self._below(entry))
                        continue
                    searched.add(identity)
                    if entry.is_symlink():
                        self.linked.append(self._below(entry))
                    inner.append(entry.path)
                elif not _is_regular(entry):
                    self.irregular.append(self._below(entry))
                elif is_image:
                    yield entry.path
                else:
                    self.other[_extension(entry.name) or "without an extension"] += 1
            waiting += reversed(inner)

    def _below(self, entry: os.DirEntry[str]) -> str:
        return visible(os.path.relpath(entry.path, self.root))

    def notes(self) -> tuple[str, ...]:
        """A line for each kind of thing that was left out or followed."""
        said = {
            "Left out, hidden": self.hidden,
            "Left out, no regular files (pipes, devices, broken links)": self.irregular,
            "Left out, links to folders that were searched already or that contain them": self.loops,
            "Links to folders were followed": self.linked,
        }
        notes = [f"{what}: {shortened(names)}." for what, names in said.items() if names]
        if self.other:
            kinds = shortened([f"{count:,} {visible(kind)}" for kind, count in self.other.most_common()])
            notes.append(f"Left out, files that are no images of a kind that can be read: {kinds}.")
        return tuple(f"{visible(self.root.name or str(self.root))}: {note}" for note in notes)


def shortened(names: list[str]) -> str:
    """Some of the names, and how many more there are."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def has_image_extension(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return _extension(name) in IMAGE_EXTENSIONS


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # a million times, so without a Path


def has_images(folder: Path) -> bool:
    """Whether there is an image in a folder, at any depth."""
    waiting, searched = [str(folder)], set[tuple[int, int]]()
    while waiting:
        place = waiting.pop()
        if (identity := _identity(place)) in searched:
            continue
        searched.add(identity)
        with _opened(place) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if has_image_extension(entry.name) and _is_regular(entry):
                    return True
                if _is_folder(entry):
                    waiting.append(entry.path)
    return False


def direct_images(folder: Path) -> list[Path]:
    """The images that lie in a folder itself."""
    return [
        Path(entry.path)
        for entry in _entries(str(folder))
        if has_image_extension(entry.name) and not is_hidden(entry.name) and _is_regular(entry)
    ]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, links to folders too, without the hidden ones; in order of their names."""
    return [Path(e.path) for e in _entries(str(folder)) if _is_folder(e) and not is_hidden(e.name)]


def hidden_folders(folder: Path) -> list[Path]:
    """The hidden folders in a folder that hold images; those that cannot be read, such as lost+found, hold none."""
    found = []
    for entry in _entries(str(folder)):
        with suppress(UserError):
            if is_hidden(entry.name) and _is_folder(entry) and has_images(Path(entry.path)):
                found.append(Path(entry.path))
    return found


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with _opened(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


@contextmanager
def _opened(folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    try:
        entries = os.scandir(folder)
    except OSError as error:
        raise UserError(f"The folder {visible(folder)} cannot be read ({error.strerror}).") from error
    with entries:
        yield entries


def _identity(path: str) -> tuple[int, int]:
    facts = os.stat(path)  # noqa: PTH116  # of each folder
    return facts.st_dev, facts.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
