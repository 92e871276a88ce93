"""Image data sets of the Hugging Face hub, by their id: hub:OWNER/NAME. Needs the package datasets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sskd.data.encoded import Encoded, Split, settle
from sskd.data.reading import Reading
from sskd.data.source import Source
from sskd.errors import UserError, unknown
from sskd.hub import quick_hub


@dataclass(frozen=True)
class HubRows:
    """Encoded images of a split: a `Reader`."""

    rows: Any  # a datasets.Dataset whose image column is not decoded
    column: str
    title: str

    def read(self, i: int) -> bytes | None:
        """The encoded image."""
        stored = self.rows[i][self.column]
        if stored is None or (stored["bytes"] is None and stored["path"] is None):
            return None
        data: bytes = stored["bytes"] or Path(stored["path"]).read_bytes()  # a data set of local files has paths alone
        return data

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
        splits = datasets.load_dataset(name, config or None)
    except Exception as error:  # network, names, scripts, formats: whatever datasets runs into
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"The data set {name} cannot be loaded from the hub or its cache: {reason}. With its parquet files in a "
            "folder, say --data parquet:PATH."
        ) from error
    train = _one(splits, reading.train, ("train",), name)
    test = _one(splits, reading.test, ("test", "validation", "valid", "val"), name, optional=True)
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
    if not isinstance(features[label], datasets.ClassLabel):
        raise UserError(f"The column {label} of {name} is no ClassLabel. Name another: --reading.label COLUMN.")
    made = []
    for title, rows in (("train", train), ("test", test)):
        if rows is not None:
            plain = rows.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
            made.append(Split(HubRows(plain, str(image), f"{name} {title}"), torch.tensor(list(plain[label]))))
    note = f"{name}: images in column {image}, labels in {label}; splits {', '.join(splits)}."
    names, title = tuple(features[label].names), name.replace("/", "-")
    return settle(Encoded(title, names, made[0], made[1] if test is not None else None, notes=(note,)), reading)


def _one(splits: Any, asked: str | None, usual: tuple[str, ...], name: str, optional: bool = False) -> Any:
    if asked is not None and asked not in splits:
        raise unknown(f"split of {name}", asked, splits)
    found = [asked] if asked else [split for split in usual if split in splits]
    if not found and not optional:
        raise UserError(f"{name} has no training split, only {', '.join(splits)}. Name one: --reading.train SPLIT.")
    return splits[found[0]] if found else None
