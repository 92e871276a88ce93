"""`sskd data check`: what is in a data set."""

from collections import Counter
from pathlib import Path

from sskd.data.check import Checked, check, contact_sheet
from sskd.data.source import Indexed
from sskd.files import make_folder, write_atomic
from sskd.ranges import refuse_empty
from sskd.reading import Reading
from sskd.terminal import Table, Terminal

LISTED = 40  # classes that the table shows
PAIRS = 5  # duplicates that are named


def check_data(data: str, reading: Reading = Reading(), sheet: str | None = None) -> None:  # noqa: B008  # frozen
    """Count classes, sizes, modes, duplicates and unreadable images of a data set, and suggest settings.

    Args:
        data: a data set (see `sskd list data`): digits, FAMILY:PATH, or a folder.
        reading: how the data set is read. Images that cannot be decoded are counted, whatever it says of them.
        sheet: a PNG file to write a contact sheet to: a row of training images for each class.
    """
    refuse_empty(sheet=sheet)
    checked, console = check(data, reading), Terminal()
    source = checked.source

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    console.print(_table(checked))
    for note in source.notes:
        say(note)
    say(f"Sizes (height x width): {_sizes(checked)}. Channels used: {source.train.channels}.")
    if checked.modes:
        say("Modes: " + ", ".join(f"{mode} {count:,}" for mode, count in checked.modes.items()) + ".")
    for where, pairs in checked.duplicates.items():
        listed = "; ".join(f"{one} = {other}" for one, other in pairs[:PAIRS])
        say(f"DUPLICATES between {where}: {len(pairs)}: {listed}{'; ...' if len(pairs) > PAIRS else ''}")
    for split, groups in checked.repeated.items():
        if groups:
            more = "; ..." if len(groups) > PAIRS else ""
            listed = "; ".join(" = ".join(_few(names)) for names in groups[:PAIRS])
            count = sum(len(names) - 1 for names in groups)
            say(f"Duplicates within {split}, {count} too many: {listed}{more}")
    if not checked.duplicates and not any(checked.repeated.values()):
        say("No duplicates.")
    for suggestion in checked.suggestions:
        say(f"Suggested: {suggestion}.")
    if sheet is not None and isinstance(source.train, Indexed):
        make_folder(Path(sheet).parent)
        write_atomic(Path(sheet), contact_sheet(source.train, source.class_names))
        say(f"Contact sheet: {sheet}")


def _few(names: list[str]) -> list[str]:
    return names if len(names) <= PAIRS else [*names[:PAIRS], f"{len(names) - PAIRS} more"]


def _table(checked: Checked) -> Table:
    names, splits = checked.source.class_names, checked.counts
    table = Table(title=f"{checked.source.name}: {len(names):,} classes")
    table.add_column("class")
    for split in splits:
        table.add_column(split, justify="right")
    for i, name in enumerate(names[:LISTED]):
        table.add_row(name, *(f"{counts[i]:,}" for counts in splits.values()))
    if len(names) > LISTED:
        table.add_row(f"... {len(names) - LISTED:,} more", *("" for _ in splits))
    table.add_section()
    table.add_row("all", *(f"{sum(counts):,}" for counts in splits.values()))
    return table


def _sizes(checked: Checked) -> str:
    common = Counter(checked.sizes).most_common(2)
    if len(common) == 1:
        (height, width), _ = common[0]
        return f"all {height}x{width}"
    short = sorted(min(size) for size in checked.sizes)
    (height, width), count = common[0]
    return (
        f"shorter side {short[0]} to {short[-1]} pixels, median {short[len(short) // 2]}; most common {height}x{width} "
        f"({count} of {len(short)})"
    )
