"""What is in a data set, before any time is spent on it: counts, sizes, duplicates, what cannot be read, a sheet."""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image, ImageDraw

from sskd.data import load_source
from sskd.data.decode import reduced, stated_mode
from sskd.data.images import Images
from sskd.data.prepare import PHOTOGRAPH, SMALL
from sskd.data.source import Indexed, Source
from sskd.errors import UserError
from sskd.reading import Reading
from sskd.validation import convert

FEW = 20  # training images of a class, below which a validation split costs more than it tells
TILE, COLUMNS, ROWS, LINE = 64, 8, 24, 14  # of the contact sheet, in pixels, images and classes


@dataclass(frozen=True)
class Checked:
    """What was found."""

    source: Source
    counts: dict[str, list[int]]  # by split, images of each class
    sizes: list[tuple[int, int]]  # height and width of every image that can be read
    duplicates: dict[str, list[tuple[str, str]]]  # by pair of splits, the names of images with the same content
    repeated: dict[str, list[list[str]]]  # by split, the names of images with the same content
    modes: dict[str, int]  # of encoded images, as their files state them
    suggestions: list[str]


def check(spec: str, reading: Reading) -> Checked:
    """Look at every image of a data set; those that cannot be read are left out, and named in `source.notes`.

    Raises:
        UserError: there is no such data set, or it cannot be used at all.
    """
    reading = convert(reading, Reading, "reading")
    if reading.stream:
        raise UserError("data check looks at every image, so there is nothing to stream. Leave --reading.stream out.")
    source = load_source(spec, replace(reading, unreadable="skip"))
    splits = {"train": source.train, "validation": source.validation, "test": source.test}
    there = {name: images for name, images in splits.items() if isinstance(images, Indexed)}  # no stream was asked for
    classes = len(source.class_names)
    counts = {name: torch.bincount(images.labels, minlength=classes).tolist() for name, images in there.items()}
    content = {name: _contents(images) for name, images in there.items()}
    duplicates: dict[str, list[tuple[str, str]]] = {}
    names = list(there)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            common = content[one].keys() & content[other].keys()
            if common:
                pairs = ((content[one][key][0], content[other][key][0]) for key in common)
                duplicates[f"{one} and {other}"] = sorted(
                    (there[one].name(first), there[other].name(second)) for first, second in pairs
                )
    repeated = {
        name: [[images.name(i) for i in found] for found in content[name].values() if len(found) > 1]
        for name, images in there.items()
    }
    sizes = [size for images in there.values() for size in _sizes(images)]
    modes = Counter(mode for images in there.values() for mode in _modes(images))
    suggestions = _suggestions(source, counts, sizes, bool(duplicates))
    return Checked(source, counts, sizes, duplicates, repeated, dict(modes.most_common()), suggestions)


def _contents(images: Indexed) -> dict[bytes, list[int]]:
    """Positions by a hash of the image: of its pixels, or of the encoded bytes."""
    found: dict[bytes, list[int]] = {}
    for position in range(len(images)):
        if isinstance(images, Images):
            data = images.pixels[position].numpy().tobytes()
        else:
            data = images.reader.read(int(images.place[position])) or b""
        found.setdefault(hashlib.sha256(data).digest(), []).append(position)
    return found


def _sizes(images: Indexed) -> list[tuple[int, int]]:
    if isinstance(images, Images):
        height, width = images.pixels.shape[-2:]
        return [(height, width)] * len(images)
    opened = (images.open(position) for position in range(len(images)))
    return [(image.height, image.width) for image in opened]


def _modes(images: Indexed) -> list[str]:
    if isinstance(images, Images):
        return []
    return [stated_mode(images.reader.read(int(place)), images.max_pixels) for place in images.place]


def _suggestions(
    source: Source, counts: dict[str, list[int]], sizes: Sequence[tuple[int, int]], leaking: bool
) -> list[str]:
    """Settings to say on the command line, each with its reason."""
    train, found = counts["train"], list[str]()
    if not isinstance(source.train, Images):
        short = sorted(min(size) for size in sizes)[len(sizes) // 2]
        side = min(PHOTOGRAPH, max(32, short // 32 * 32))
        if side != PHOTOGRAPH:
            found.append(f"--size {side}: the median of the shorter sides is {short} pixels")
    elif max(sizes[0]) > SMALL:
        found.append("--crop resized is taken: the images are larger than those that the 32-pixel recipe is made for")
    if source.validation is None and min(train) < FEW:
        found.append(f"--validation 0: the smallest class has {min(train)} training images, too few to spare any")
    if sum(train) < 64:
        found.append(f"--batch_size {max(sum(train) // 4, 2)}: there are {sum(train)} training images in all")
    if max(train) > 10 * min(train):
        found.append(f"the classes are uneven, {min(train)} to {max(train)} images: look at the accuracy of each class")
    if leaking:
        found.append("remove the duplicates between splits: accuracy on images that were trained on says nothing")
    return found


def contact_sheet(train: Indexed, class_names: Sequence[str]) -> bytes:
    """A PNG with the first training images of each class, a row a class, as many rows as fit on a page."""
    rows = class_names[:ROWS]
    sheet = Image.new("RGB", (COLUMNS * TILE, len(rows) * (TILE + LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(rows):
        top = row * (TILE + LINE)
        draw.text((2, top + 1), name, fill="black")
        positions = (train.labels == row).nonzero().flatten()[:COLUMNS].tolist()
        for column, position in enumerate(positions):
            sheet.paste(reduced(_picture(train, position), TILE), (column * TILE, top + LINE))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _picture(images: Indexed, position: int) -> Image.Image:
    if not isinstance(images, Images):
        return images.open(position)
    pixels = images.pixels[position]
    return Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy())
