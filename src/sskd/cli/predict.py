"""`sskd predict`: labels for files and folders."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Literal

from sskd.escaping import csv_cell, encoded, is_utf8, visible
from sskd.files import make_folder, write_atomic
from sskd.jobs.predict import Prediction, predictions
from sskd.ranges import refuse_empty
from sskd.terminal import Table, Terminal


def predict(
    run: str,
    images: list[str],
    format: Literal["table", "csv", "json"] = "table",
    out: str | None = None,
    top: int = 1,
    unreadable: Literal["refuse", "skip"] = "refuse",
    batch_size: int = 64,
    device: str = "auto",
    trust_code: bool = False,
) -> None:
    """Label image files with a run's student.

    Args:
        run: a run directory, or a folder as timm writes it.
        images: image files, and folders that are searched for them at any depth; the word --images may be left out.
        format: table for people; csv or json for programs. In csv, names that a spreadsheet would take for formulas
            begin with an apostrophe, and control characters are written as \\n, \\x1b; json keeps names as they are.
        out: a file to write to, instead of the terminal.
        top: how many of the most probable classes to give for each image.
        unreadable: images that cannot be decoded stop the command, named and counted, or are skipped.
        batch_size: images at a time.
        device: auto, cpu, cuda or cuda:N.
        trust_code: run the function that the folder names as its architecture (package.module:function), if it names
            one; it is refused otherwise.
    """
    refuse_empty(run=run, out=out)
    found, skipped, notes = predictions(run, images, top, unreadable, batch_size, device, trust_code)
    for note in notes:
        print(visible(f"sskd: {note}"), file=sys.stderr)
    for reason in skipped:
        print(visible(f"sskd: skipped: {reason}"), file=sys.stderr)
    odd = len({one.path for one in found if not is_utf8(one.path)})
    if odd and format != "json":
        names = "1 file name is" if odd == 1 else f"{odd} file names are"
        said = f"{names} not UTF-8: other bytes are written as \\xe9. --format json keeps them, for os.fsencode."
        print(f"sskd: {said}", file=sys.stderr)
    text = {"table": _table, "csv": _csv, "json": _json}[format](found)
    if out is None:
        print(text, end="")
        return
    make_folder(Path(out).parent)
    write_atomic(Path(out), encoded(text))


def _csv(found: list[Prediction]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(Prediction._fields)
    writer.writerows(map(csv_cell, one) for one in found)
    return buffer.getvalue()


def _json(found: list[Prediction]) -> str:
    return json.dumps([one._asdict() for one in found], indent=2) + "\n"


def _table(found: list[Prediction]) -> str:
    table = Table("image", "label", "probability")
    for one in found:
        table.add_row(one.path if one.rank == 1 else "", one.label, f"{one.probability:.1%}")
    console = Terminal(file=io.StringIO(), width=None if sys.stdout.isatty() else 200)
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text
