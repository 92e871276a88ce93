"""The console that all commands print to: text means itself, whoever wrote it."""

from typing import Any

from rich import table
from rich.console import Console
from rich.text import Text

from sskd.escaping import visible


class Terminal(Console):
    r"""A rich console that knows no markup and no emoji codes, colours no numbers, and shows control characters.

    That holds for every text that is printed and for every cell, title and caption of a table: `[b]` stays `[b]`, and
    an escape sequence in a file's name is shown as `\x1b` instead of being obeyed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as what is shown of it."""
        return super().render_str(visible(text, keep="\n"), **{**options, "markup": False, "emoji": False})


class Table(table.Table):
    r"""A rich table in which each text is one line: a line break in a name is shown as `\n`."""

    def add_column(self, header: Any = "", *more: Any, **options: Any) -> None:
        """Add a column with this header."""
        super().add_column(_one_line(header), *more, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of these cells."""
        super().add_row(*map(_one_line, cells), **options)


def _one_line(cell: Any) -> Any:
    return visible(cell) if isinstance(cell, str) else cell
