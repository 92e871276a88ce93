"""`sskd report`: from folders to a file."""

import shlex
import sys
import time
from pathlib import Path
from typing import Literal

import sskd
from sskd.errors import UserError
from sskd.escaping import encoded, visible
from sskd.files import make_folder, write_atomic
from sskd.report.export import as_csv, as_json, as_markdown
from sskd.report.found import Found, find
from sskd.report.page import Page, as_html, gather

EVERY = 5  # seconds between two looks at what runs
FORMATS = ("html", "md", "csv", "json")
PATIENCE = 6  # looks in a row that see no process, before what has no result counts as given up


def report(
    paths: tuple[str, ...] = (),
    out: str | None = None,
    format: Literal["html", "md", "csv", "json"] = "html",
    plots: Literal["svg", "png"] | None = None,
    live: bool = False,
    title: str = "",
) -> None:
    """Write a report of runs, benches and studies: one HTML file that needs nothing beside it, or md, csv, json.

    Args:
        paths: folders of runs, benches or studies, searched at any depth; the word --paths may be left out.
        out: the file to write; report.FORMAT in the first folder where it is not given.
        format: html for people; md for a results page; csv or json for programs.
        plots: write the plots too, for a paper, into a folder beside the file; md links them. Needs sskd[report].
        live: write the report anew every few seconds until all runs have ended or nobody trains them any more; browsers
            that show it follow.
        title: above the report; the names of benches and data sets where it is not given.

    Raises:
        UserError: folders that hold no runs, a file that cannot be written, plots without matplotlib.
    """
    if out == "":
        raise UserError("--out is empty. Give a file, or leave it out for report.FORMAT in the first folder.")
    target = Path(out) if out else Path(paths[0] if paths else ".") / f"report.{format}"
    kind = target.suffix.removeprefix(".")
    if kind in FORMATS and kind != format:
        raise UserError(f"--out {target} is for --format {kind}; the format is {format}. Say --format {kind}.")
    if live and format != "html":
        raise UserError(f"--live is for --format html; got {format}.")
    found = find(paths)
    make_folder(target.parent)
    patience = PATIENCE
    while True:
        page = _gathered(found, title)
        patience = PATIENCE if page.busy else patience - 1
        refresh = EVERY if live and patience and (page.busy or not page.finished) else 0
        _write(page, target, format, plots, refresh)
        if not refresh:
            break
        time.sleep(EVERY)
        found = find(paths)
    print(visible(f"{target} ({target.stat().st_size / 1e6:.1f} MB): {page.headline}"))
    if left := _left(page):
        print(visible(left, keep="\n"))


def _left(page: Page) -> str:
    """What is not finished and has nobody who trains it, with the commands that continue it."""
    given_up = [part.section for part in page.parts if part.section.waiting and not part.section.busy]
    if not given_up:
        return ""
    commands = [f"  {one.command or 'each run: its command, at the end of the report'}" for one in given_up]
    said = "; ".join(f"{one.title}: {one.left}" for one in given_up)
    return "\n".join([f"{said}. What was begun continues by the same command:", *commands])


def _gathered(found: Found, title: str) -> Page:
    command = shlex.join(["sskd", *sys.argv[1:]]) if sys.argv[1:2] == ["report"] else "sskd report"
    return gather(found, title, time.strftime("%Y-%m-%d %H:%M %Z"), command, sskd.__version__)


def _write(page: Page, target: Path, format: str, plots: str | None, refresh: int) -> None:
    files: dict[str, list[str]] = {}
    if plots:
        from sskd.report.paper import write_plots  # matplotlib: an extra, and slow to load

        folder = target.with_name(f"{target.stem}-plots")
        files = {
            key: [f"{folder.name}/{name}" for name in names] for key, names in write_plots(page, folder, plots).items()
        }
    text = {
        "html": lambda: as_html(page, refresh),
        "md": lambda: as_markdown(page, files),
        "csv": lambda: as_csv(page),
        "json": lambda: as_json(page),
    }[format]()
    write_atomic(target, encoded(text))
