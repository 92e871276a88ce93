"""Image data sets of the Hugging Face hub, by their id: hub:OWNER/NAME. Needs the package datasets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sskd.data.encoded import PHOTOGRAPHS, Encoded, Split, settle
from sskd.data.labels import class_numbers, name_notes
from sskd.data.layout import KINDS, Kind
from sskd.data.source import Source
from sskd.data.streams import Sample, Stream
from sskd.errors import UserError, unknown
from sskd.hub import quick_hub
from sskd.reading import Reading

BUFFER = 1000  # images among which a stream is shuffled


def encoded_bytes(stored: Any) -> bytes | None:
    """An undecoded image: its bytes, or those of its file, since a data set of local files has paths alone."""
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        return None
    if stored["bytes"] or not stored["path"]:
        return bytes(stored["bytes"])
    return Path(stored["path"]).read_bytes() if Path(stored["path"]).is_file() else None  # pipes and devices never end


@dataclass(frozen=True)
class HubRows:
    """Encoded images of a split: a `Reader`."""

    rows: Any  # a datasets.Dataset whose image column is not decoded
    column: str
    title: str

    @property
    def names(self) -> "HubRows":
        """See `Reader`; the rows lie on disk."""
        return self

    def read(self, i: int) -> bytes | None:
        """The encoded image."""
        return encoded_bytes(self.rows[i][self.column])

    def name(self, i: int) -> str:
        """Row and split."""
        return f"row {i} (from 0) of {self.title}"

    def identity(self, i: int) -> str:
        """Row and split, with the fingerprint that `datasets` keeps."""
        return f"{self.title} {self.rows._fingerprint} {i}"


def load(path: str | None, reading: Reading) -> Source:
    """Read a data set by its id, `OWNER/NAME`, or `OWNER/NAME@CONFIG`; from the cache where it lies there.

    Columns and splits are guessed from the features unless `reading` names them. Raises `UserError` if there is no
    such data set, no network, or no image and class columns.
    """
    if path is None:
        raise UserError("The data set family hub needs an id: say hub:OWNER/NAME.")
    try:
        import datasets
    except ImportError as error:
        raise UserError("hub: needs the package datasets. Install it with: pip install 'sskd[hub]'") from error
    name, _, config = path.partition("@")
    quick_hub(f"the data set {name}")
    try:
        splits = datasets.load_dataset(name, config or None, streaming=reading.stream)
    except Exception as error:  # network, names, scripts, formats: whatever datasets runs into
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"The data set {name} cannot be loaded from the hub or its cache: {reason}. With its parquet files in a "
            "folder, say --data parquet:PATH."
        ) from error
    found = _found(splits, name, reading)
    return _streamed(found, reading) if reading.stream else _kept(found, reading)


def handed_over(splits: Mapping[str, Any], name: str, reading: Reading) -> Source:
    """Splits that are there as `datasets.Dataset`; a test split is cut off where there is none.

    Raises:
        UserError: a stream; no training split, no image or label column, images without a label.
    """
    for split, rows in splits.items():
        if not hasattr(rows, "__len__"):
            raise UserError(
                f"The {split} split is a datasets.{type(rows).__name__}, a stream without a length. Load it without "
                'streaming=True; or name it as text, "hub:OWNER/NAME", with reading=Reading(stream=True).'
            )
    return _kept(_found(splits, name, reading), reading)


def _found(splits: Mapping[str, Any], name: str, reading: Reading) -> "_Found":
    """The splits and columns, guessed from names and features unless `reading` names them."""
    import datasets

    train = _one(splits, reading.train, ("train",), name)
    test = _one(splits, reading.test, ("test", "validation"), name, optional=True)
    if test is train:
        raise UserError(f"{name} would be trained and tested on one split. Name another: --reading.test SPLIT.")
    features = train.features
    image = reading.image or next((c for c, f in features.items() if isinstance(f, datasets.Image)), None)
    classes = [c for c, f in features.items() if isinstance(f, datasets.ClassLabel)]
    preferred = [c for c in ("label", "fine_label", "labels") if c in classes]
    label = reading.label or next(iter([*preferred, *classes]), None)
    for kind, column in (("image", image), ("label", label)):
        if column is None:
            raise UserError(
                f"{name} has no {kind} column among {', '.join(features)}. Name it: --reading.{kind} COLUMN."
            )
        if column not in features:
            raise unknown(f"column of {name}", column, features)
    if not isinstance(features[image], datasets.Image):
        raise UserError(f"The column {image} of {name} holds no images. Name another: --reading.image COLUMN.")
    if not isinstance(features[label], datasets.ClassLabel):
        raise UserError(
            f"The column {label} of {name} is no ClassLabel. Name another: --reading.label COLUMN; or make it one: "
            f"dataset.class_encode_column({label!r})."
        )
    names = tuple(features[label].names)
    others = [column for column in classes if column != label]
    note = f"{name}: images in column {image}, labels in {label}"
    note += f" (not {', '.join(others)})" if others else ""
    notes = (f"{note}; splits {', '.join(splits)}.", *name_notes(names, "labels"))
    return _Found(name, names, str(image), str(label), train, test, reading.max_pixels, notes)


class _Found(NamedTuple):
    """A data set with its columns, as `datasets` gives it."""

    name: str
    class_names: tuple[str, ...]
    image: str
    label: str
    train: Any
    test: Any
    max_pixels: int
    notes: tuple[str, ...]

    def plain(self, rows: Any) -> Any:
        """The two columns, images still encoded, in Python's types whatever format was set (with_format)."""
        import datasets

        plain = rows.with_format(None).select_columns([self.image, self.label])
        return plain.cast_column(self.image, datasets.Image(decode=False))


def _kept(found: _Found, reading: Reading) -> Source:
    made = []
    for title, rows in (("train", found.train), ("test", found.test)):
        if rows is not None:
            plain = found.plain(rows)
            labels = class_numbers(plain[found.label], found.class_names, f"{found.name}, {title} split")
            made.append(Split(HubRows(plain, found.image, f"{found.name} {title}"), labels))
    test = made[1] if found.test is not None else None
    encoded = Encoded(found.name.replace("/", "-"), found.class_names, made[0], test, notes=found.notes)
    return settle(encoded, reading)


def _streamed(found: _Found, reading: Reading) -> Source:
    if found.test is None:
        raise UserError(f"{found.name} has no test split, and none can be cut off a stream. Name one: --reading.test.")
    train, test = (
        _stream(found, rows, title, epoch_images)
        for rows, title, epoch_images in ((found.train, "train", reading.epoch_images), (found.test, "test", None))
    )
    mean, std = PHOTOGRAPHS[3]
    name = found.name.replace("/", "-")
    return Source(
        name, found.class_names, train, test, mean, std, notes=(f"{found.notes[0]} Read as a stream.", *found.notes[1:])
    )


def _stream(found: _Found, rows: Any, title: str, epoch_images: int | None) -> Stream:
    stated = rows.info.splits[title].num_examples if rows.info.splits and title in rows.info.splits else None
    size = epoch_images or stated or (1 if title == "test" else None)
    if size is None:
        raise UserError(f"{found.name} does not say how many images it has. Say it: --reading.epoch_images N.")
    plain = found.plain(rows)

    def samples(seed: int | None, first: int) -> Iterator[Sample]:
        shuffled = plain if seed is None else plain.shuffle(seed=seed, buffer_size=BUFFER)
        for row in shuffled.skip(first):
            if not isinstance(label := row[found.label], int) or not 0 <= label < len(found.class_names):
                raise UserError(
                    f"{found.name} has an image without a label in its {title} stream: {label!r} in {found.label}. "
                    "Name another column or split, or leave --reading.stream out."
                )
            yield encoded_bytes(row[found.image]), label

    identity = f"{found.name} {title} {rows.info.version} {rows.info.dataset_size}"
    return Stream(samples, int(size), identity, counted=bool(epoch_images or stated), max_pixels=found.max_pixels)


def _one(splits: Any, asked: str | None, usual: tuple[Kind, ...], name: str, optional: bool = False) -> Any:
    if asked is not None and asked not in splits:
        raise unknown(f"split of {name}", asked, splits)
    found = [asked] if asked else [split for kind in usual for split in splits if KINDS.get(split.lower()) == kind]
    if not found and not optional:
        raise UserError(f"{name} has no training split, only {', '.join(splits)}. Name one: --reading.train SPLIT.")
    return splits[found[0]] if found else None
