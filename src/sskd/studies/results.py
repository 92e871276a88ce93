"""What a study came to: study.json for programs and plots, a table for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sskd.bench.labels import percent
from sskd.bench.notes import labels_notes
from sskd.bench.results import Cell, Row, mean_and_deviation, read_log, rows_of
from sskd.bench.table import as_csv, as_json, as_markdown, tabulated
from sskd.escaping import encoded, markdown
from sskd.files import make_folder, write_atomic, write_json
from sskd.studies.base import Series, Study, X

Values = dict[str, Any]
Grid = Mapping[tuple[tuple[str, str], str, Any], Row]
WIDE = 5  # more columns than that are rows


def write(out: Path, study: Study, cells: Sequence[Cell], failed: dict[str, str]) -> Path:
    """Write table.md, table.csv, table.json and study.json; returns the first."""
    make_folder(out)
    lines, found = tabulated(cells, failed), summary(study, cells)
    write_json(out / "study.json", found)
    write_atomic(out / "table.json", encoded(as_json(study.recipe, lines, cells, failed)))
    write_atomic(out / "table.csv", encoded(as_csv(lines)))
    about = "\n\n".join([f"**{study.question}**", study.about, matrix(found), f"Again: `{study.command}`"])
    write_atomic(out / "table.md", encoded(as_markdown(replace(study.recipe, about=about), lines, cells)))
    return out / "table.md"


def summary(study: Study, cells: Sequence[Cell]) -> Values:
    """For study.json: test top-1 % at the last epoch, by series along the axis; gaps where nothing is finished."""
    rows = {(row.pair, row.label, row.labels): row for row in rows_of(cells)}
    pairs = list(dict.fromkeys(pair for pair, _, _ in rows))
    series = [_series(study, one, pair, rows, len(pairs) > 1) for pair in pairs for one in study.series]
    values = study.values
    data: Mapping[str, Any] = next((cell.config["data"] for cell in cells if cell.status == "finished"), {})
    notes = ["Test top-1 % at the last epoch; mean and sample deviation over seeds.", *labels_notes(cells)]
    if study.heads:
        notes.append("head: how often the teacher's self-supervised head answers rightly, in %.")
    return {
        "study": study.name,
        "question": study.question,
        "about": study.about,
        "x": {"name": study.x_name, "label": study.x_label, "values": values},
        "series": series,
        "data": data.get("name", study.recipe.data),
        "notes": notes,
        "command": study.command,
    }


def _series(study: Study, one: Series, pair: tuple[str, str], rows: Grid, several: bool) -> Values:
    label = f"{one.label} ({pair[0]} -> {pair[1]})" if several else one.label
    points = []
    for point in one.points:
        row = rows.get((pair, point.label, point.labels))
        if row is None:  # a pair that leaves the method out
            continue
        values = row.values("last")
        mean, deviation = mean_and_deviation([*values.values()])
        found: Values = {"x": point.x, "n": len(values), "of": len(row.cells), "mean": mean, "deviation": deviation}
        found["values"] = {str(seed): value for seed, value in values.items()}
        if study.heads:
            found["head"] = next((head for cell in row.finished if (head := head_accuracy(cell.task.folder))), None)
        points.append(found)
    return {"label": label, "method": one.method, "points": points}


def head_accuracy(run: Path) -> Values | None:
    """How often the teacher's head answers its question rightly, and on what; None where a run says nothing of it.

    A run that took its head from the cache finds it there.
    """
    records = [record for record in read_log(run / "log.jsonl") if record.get("stage") == "head"]
    record: Mapping[str, Any] = records[-1] if records else {}
    if "reused" in record:
        try:
            with safe_open(record["reused"], "pt") as file:
                record = json.loads((file.metadata() or {}).get("record", "{}"))
        except (OSError, SafetensorError, ValueError):
            return None
    for split in ("fresh", "test"):  # fresh views of training images, where a head knows those alone
        if (accuracy := record.get(split, {}).get("ss_accuracy")) is not None:
            return {"accuracy": 100 * accuracy, "on": split}
    return None


def matrix(found: Mapping[str, Any]) -> str:
    """The study at a glance: series against what stands along the axis."""
    axis, series = found["x"], found["series"]
    numbers = all(isinstance(x, int | float) for x in axis["values"])
    at = [{point["x"]: point for point in one["points"]} for one in series]
    columns = [_heading(x) for x in axis["values"]]
    rows = [
        [markdown(one["label"]), *(_cell(points.get(x)) for x in axis["values"])]
        for one, points in zip(series, at, strict=True)
    ]
    if numbers and len(columns) > 1:
        columns.append("first to last")
        for row, points in zip(rows, at, strict=True):
            own = [*points.values()]  # of which series may have fewer than there are columns
            row.append(_change(own[0], own[-1]) if own else "")
    table = [[markdown(axis["label"]), *columns], *rows]
    if len(series) == 1 or (not numbers and len(columns) > WIDE):
        table = [list(column) for column in zip(*table, strict=True)]
        if any("head" in point for point in at[0].values()):
            heads = [_head(at[0].get(x)) for x in axis["values"]]
            table = [[*row, head] for row, head in zip(table, ["head right", *heads], strict=True)]
    table.insert(1, ["---"] * len(table[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def _heading(x: X) -> str:
    return percent(x) if isinstance(x, int | float) else markdown(x)


def _cell(point: Mapping[str, Any] | None) -> str:
    if point is None or point["mean"] is None:
        return ""
    spread = "" if point["deviation"] is None else f" ± {point['deviation']:.2f}"
    return f"{point['mean']:.2f}{spread}" + ("" if point["n"] == point["of"] else f" ({point['n']} of {point['of']})")


def _change(first: Mapping[str, Any] | None, last: Mapping[str, Any] | None) -> str:
    """The mean difference in points, over the seeds that both have."""
    if first is None or last is None:
        return ""
    both = [last["values"][seed] - value for seed, value in first["values"].items() if seed in last["values"]]
    return f"{sum(both) / len(both):+.2f}" if both else ""


def _head(point: Mapping[str, Any] | None) -> str:
    head = (point or {}).get("head")
    return f"{head['accuracy']:.1f} % ({head['on']})" if head else ""
