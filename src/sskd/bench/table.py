"""A grid's table as Markdown, CSV and JSON."""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sskd.bench.labels import Labels
from sskd.bench.notes import labels_notes
from sskd.bench.published import CONDITIONS, data_of, published
from sskd.bench.results import KD_LABEL, Cell, Compared, Row, compare, mean_and_deviation, on_gpu, rows_of
from sskd.escaping import csv_row, encoded, markdown, markdown_code
from sskd.files import make_folder, write_atomic

if TYPE_CHECKING:
    from sskd.bench.recipe import Recipe  # torch: a table is made without

Values = dict[str, Any]
_COLUMNS = (
    "teacher", "student", "fraction", "per_class", "noise", "noise_kind", "same_steps", "teacher_saw",
    "label", "method", "kd_weight", "n", "of",
    "last_mean", "last_deviation", "best_mean", "best_deviation",
    "vs_kd", "vs_kd_p", "vs_best", "vs_best_p", "published",
    "cpu_seconds", "unit", "seconds", "stage_seconds", "peak_mib", "failed",
)  # fmt: skip


def tabulated(cells: Sequence[Cell], failed: dict[str, str]) -> list[Values]:
    """One dictionary for each row: the teacher of each pair, then its methods. `failed`: messages by task."""
    by_name = {cell.task.name: cell for cell in cells}
    lines, seen = list[Values](), set[tuple[tuple[str, str], Labels]]()
    rows = rows_of(cells)
    for row in rows:
        group = [other for other in rows if (other.pair, other.labels) == (row.pair, row.labels)]
        if (row.pair, row.labels) not in seen:
            seen.add((row.pair, row.labels))
            teacher = by_name.get(row.cells[0].task.teacher or "")
            lines += [_teacher(teacher, row)] if teacher else []
        lines.append(_line(row, group, failed))
    return lines


def _line(row: Row, group: Sequence[Row], failed: dict[str, str]) -> Values:
    kd = next((other for other in group if other.label == KD_LABEL), None)
    best = max(group, key=lambda other: statistics.fmean([*other.values("last").values()] or [0.0]))
    done, config = row.finished, row.finished[0].config if row.finished else {}
    against = {"vs_kd": compare(row, kd) if kd else None, "vs_best": compare(row, best)}
    stages: dict[str, float] = {}
    for cell in done:
        stages = {name: max(stages.get(name, 0.0), seconds) for name, seconds in {**stages, **cell.stages}.items()}
    loss = (config.get("stages") or [{}])[-1].get("loss", {})
    return {
        "teacher": row.pair[0],
        "student": row.pair[1],
        **asdict(row.labels),
        "label": row.label,
        "method": row.cells[0].facts["method"],
        "kd_weight": loss.get("kd", 0.0) if done else None,
        "n": len(done),
        "of": len(row.cells),
        **_accuracies(row),
        **{key: one.difference if one else None for key, one in against.items()},
        **{f"{key}_p": one.p if one else None for key, one in against.items()},
        **{f"{key}_mark": one.mark if isinstance(one, Compared) else "" for key, one in against.items()},
        "published": _published(config, row, row.label) if row.label == row.cells[0].facts["method"] else None,
        "unit": unit_of(config),
        "cpu_seconds": _mean([cell.cpu_seconds for cell in done]),
        "seconds": _mean([cell.seconds for cell in done]),
        "stage_seconds": stages,
        "peak_mib": max((cell.peak_mib for cell in done), default=0) or None,
        "failed": "; ".join(sorted({failed[cell.task.name] for cell in row.cells if cell.task.name in failed})),
    }


def _accuracies(row: Row) -> Values:
    found: Values = {}
    for kind in ("last", "best"):
        mean, deviation = mean_and_deviation([*row.values(kind).values()])  # type: ignore[arg-type]
        found |= {f"{kind}_mean": mean, f"{kind}_deviation": deviation}
    return found


def _teacher(cell: Cell, row: Row) -> Values:
    return dict.fromkeys(_COLUMNS) | {
        "teacher": row.pair[0],
        "student": row.pair[1],
        **asdict(row.labels),
        "label": "teacher",
        "n": int(cell.status == "finished"),
        "of": 1,
        "last_mean": cell.last,
        "best_mean": cell.best,
        "published": _published(cell.config, row, "teacher"),
        "unit": unit_of(cell.config),
        "cpu_seconds": cell.cpu_seconds or None,
        "seconds": cell.seconds or None,
        "stage_seconds": {},
        "peak_mib": cell.peak_mib or None,
        "failed": "",
    }


def unit_of(config: Any) -> str:
    """What `cpu_seconds` are seconds of."""
    return "GPU s" if on_gpu(config) else "CPU s"


def _published(config: Any, row: Row, method: str) -> float | None:
    """Those numbers are of all images with right labels, and of a method as the paper has it, not of other options."""
    return published(config.get("data", {}), *row.pair, method) if row.labels == Labels() else None


def _mean(values: Sequence[float]) -> float | None:
    return mean_and_deviation(values)[0]


def write(out: Path, recipe: "Recipe", cells: Sequence[Cell], failed: dict[str, str]) -> Path:
    """Write table.md, table.csv and table.json into a folder; returns the first."""
    make_folder(out)
    lines = tabulated(cells, failed)
    write_atomic(out / "table.json", encoded(as_json(recipe, lines, cells, failed)))
    write_atomic(out / "table.csv", encoded(as_csv(lines)))
    write_atomic(out / "table.md", encoded(as_markdown(recipe, lines, cells)))
    return out / "table.md"


def as_csv(lines: Sequence[Values]) -> str:
    """One row each, numbers in full."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        stages = ";".join(f"{name}={seconds:.1f}" for name, seconds in line["stage_seconds"].items())
        writer.writerow(csv_row({**line, "stage_seconds": stages}))
    return file.getvalue()


def as_json(recipe: "Recipe", lines: Sequence[Values], cells: Sequence[Cell], failed: dict[str, str]) -> str:
    """The recipe, the rows, and every cell with what its run stated about data and machine."""
    runs = [
        {
            **{key: value for key, value in vars(cell).items() if key not in ("task", "config")},
            **cell.facts,
            "folder": cell.task.name,
            "failed": failed.get(cell.task.name),
            "environment": cell.config.get("environment"),
            "execution": cell.config.get("execution"),
            "train_images": cell.config.get("data", {}).get("train_images"),
            "stage_epochs": {stage["name"]: stage["epochs"] for stage in cell.config.get("stages", [])},
            "loss": (cell.config.get("stages") or [{}])[-1].get("loss"),
        }
        for cell in cells
    ]
    return json.dumps({"recipe": asdict(recipe), "rows": list(lines), "runs": runs}, indent=1) + "\n"


def as_markdown(recipe: "Recipe", lines: Sequence[Values], cells: Sequence[Cell]) -> str:
    """A table for each pair and all that students saw, and what to know about the numbers."""
    parts = [f"# {markdown(recipe.name)}", *([recipe.about] if recipe.about else [])]
    groups: dict[tuple[str, str, Labels], list[Values]] = {}
    for line in lines:
        groups.setdefault((line["teacher"], line["student"], Labels.read(line)), []).append(line)
    for (teacher, student, labels), group in groups.items():
        said = f", {labels.said}" if labels.said else ""
        parts += [f"## {markdown_code(teacher)} -> {markdown_code(student)}{said}", _markdown(group)]
    return "\n\n".join([*parts, *_footnotes(lines, cells)]) + "\n"


def _markdown(group: Sequence[Values]) -> str:
    theirs = any(line["published"] is not None for line in group)
    head = ["method", "KD added", "n", "last epoch", "best on validation", "to KD", "to the best"]
    units = dict.fromkeys(line["unit"] for line in group if line["cpu_seconds"])
    head += [*(["published"] if theirs else []), " or ".join(units) or "CPU s", "stages before, s", "peak MiB"]
    rows = [head, ["---"] * len(head)]
    for line in group:
        count = f"{line['n']}" if line["n"] == line["of"] else f"{line['n']} of {line['of']}"
        cells = [markdown(line["label"]), _kd(line), count, _spread(line, "last"), _spread(line, "best")]
        cells += [_difference(line, "vs_kd"), _difference(line, "vs_best")]
        cells += [_number(line["published"], 2)] if theirs else []
        stages = ", ".join(f"{markdown(name)} {seconds:.0f}" for name, seconds in line["stage_seconds"].items())
        cells += [_number(line["cpu_seconds"], 0), stages, _number(line["peak_mib"], 0)]
        rows.append([*cells[:3], markdown(line["failed"]), *cells[4:]] if line["failed"] and not line["n"] else cells)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def _kd(line: Values) -> str:
    weight = line["kd_weight"]
    return "" if weight is None else f"x {weight:g}" if weight else "no"


def _spread(line: Values, kind: str) -> str:
    mean, deviation = line[f"{kind}_mean"], line[f"{kind}_deviation"]
    return "" if mean is None else f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def _difference(line: Values, key: str) -> str:
    return "" if line.get(key) is None else f"{line[key]:+.2f}{line.get(f'{key}_mark', '')}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _footnotes(lines: Sequence[Values], cells: Sequence[Cell]) -> list[str]:
    done = [cell for cell in cells if cell.status == "finished"]
    if not done:
        return ["No cell has finished yet."]
    config = next((cell.config for cell in done if cell.task.kind == "student"), done[0].config)
    data, environment = config["data"], config["environment"]
    told, images = labels_notes(cells), data["train_images"]
    if told:  # the headings say how many of all
        images = data.get("teacher_images", images)
    counts = f"{images:,} training, {data.get('validation_images', 0):,} validation"
    notes = [
        f"Test top-1 %, mean ± sample deviation over n seeds; {markdown(data['name'])}, {counts} and "
        f"{data['test_images']:,} test images. One teacher "
        "for each pair, and what is trained on a teacher alone (heads, paraphrasers, branches) once for all students. "
        "Seeds vary the student's and its adapters' first weights, the order of the images, crops, flips and what "
        "methods draw; not the teacher nor the splits.",
        "Differences are in points, paired by seed; * p < 0.05, ** p < 0.01 (two-sided paired t-test, from three seeds "
        "on, not corrected for the number of methods). Fewer seeds: no test, and differences under half a point mean "
        "nothing.",
        *told,
        "CPU s, GPU s: of the student's stage, mean, by the clock on a GPU; stages before: of the run that trained "
        "them. Peak MiB: of the process. "
        f"{environment.get('processor', '')}, torch {environment.get('torch', '')}.",
    ]
    if any(line["published"] is not None for line in lines):
        training = config.get("arguments", {}).get("training", {})
        ours = f"{training.get('epochs')} epochs, batch {training.get('batch_size')}"
        notes.append(
            f"Published: {CONDITIONS[data_of(data)]}. Here: {ours}, {data['train_images']:,} training images, as above."
        )
    return notes
