"""Text that others wrote (names of files and classes, messages), made safe for where it is shown: one place for each.

HTML is left to jinja2, which escapes everything. Terminals: `sskd.terminal`, which uses `visible`.
"""

import re
from typing import Any

# Control characters, what turns the direction of writing or breaks lines without being seen, and lone surrogates, of
# which U+DC80 to U+DCFF are bytes of a file's name that is not UTF-8.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")


def visible(text: str, keep: str = "") -> str:
    r"""Text with control characters, and bytes that are not UTF-8, written as `\x1b`, `\n`, `\xe9`.

    `keep` are characters that stay, such as a line break.

    Example:
        >>> print(visible("a\x1b[2Jb"))
        a\x1b[2Jb
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else _written(found[0]), text)


def _written(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # a byte that the file system gave
    return _NAMED.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def is_utf8(text: str) -> bool:
    """Whether text can be written as UTF-8; file names that hold other bytes cannot."""
    return _SURROGATE.search(text) is None


def encoded(text: str) -> bytes:
    r"""Text as UTF-8 for a file; bytes of names that are not UTF-8 as `\xe9`."""
    return _SURROGATE.sub(lambda found: _written(found[0]), text).encode()


def csv_cell(value: Any) -> Any:
    """A cell of a CSV file: text that a spreadsheet would take for a formula gets an apostrophe before it.

    Numbers stay numbers; control characters are made visible, so that a row is a line.
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@＝＋－＠") and not _NUMBER.fullmatch(text) else text


def csv_row(values: dict[str, Any]) -> dict[str, Any]:
    """A row of a CSV file, each cell as `csv_cell` makes it."""
    return {name: csv_cell(value) for name, value in values.items()}


def markdown(value: Any) -> str:
    """Text that means itself in Markdown, in one line: in a cell, a heading, a list or a paragraph."""
    text = " ".join(visible(str(value), keep="\n\t").split()) if value is not None else ""
    text = re.sub(r"[\\`*|<>\[\]~$]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)", lambda found: f"\\{found[0]}", text)
    text = re.sub(r"(?<=\w)(?=://)|(?<=\bwww)(?=\.)", r"\\", text)  # else a link
    return re.sub(r"^(?=[#+=-])|^(\d+)(?=[.)]\s)", r"\1\\", text) if _begins_a_block(text) else text


def _begins_a_block(text: str) -> bool:
    return re.match(r"#{1,6}(\s|$)|[+-](\s|$)|\d+[.)]\s|(-{3,}|={1,})\s*$", text) is not None


def markdown_code(value: Any) -> str:
    """Text as code in a line of Markdown."""
    text = visible(str(value))
    fence = "`" * (_longest_fence(text) + 1)
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def markdown_block(text: str, language: str = "") -> str:
    """Lines as a block of code, whatever they hold."""
    fence = "`" * max(3, _longest_fence(text) + 1)
    return f"{fence}{language}\n{visible(text, keep=chr(10))}\n{fence}"


def _longest_fence(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
