"""The report as Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sskd.escaping import csv_row, markdown, markdown_block
from sskd.report.filters import added, points, share, signed, spread, stages, whole
from sskd.report.found import Values
from sskd.report.groups import Group
from sskd.report.page import Page, Part
from sskd.report.summary import Answer

COLUMNS = (
    "section", "data", "kind", "teacher", "student", "conditions", "fraction", "label", "method", "kd_weight",
    "n", "of",
    "last_mean", "last_deviation", "best_mean", "best_deviation", "vs_kd", "vs_kd_p", "vs_best", "vs_best_p",
    "published", "cpu_seconds", "unit", "seconds", "peak_mib", "failed",
)  # fmt: skip


def rows(page: Page) -> list[dict[str, Any]]:
    """All rows of all tables, with their section and data."""
    return [
        {"section": part.section.title, "data": part.section.data, "kind": group.kind,
         "conditions": group.details or group.conditions, **row}
        for part in page.parts
        for group in part.section.groups
        for row in group.rows
    ]  # fmt: skip


def as_csv(page: Page) -> str:
    """One line for each row, numbers in full."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(csv_row, rows(page)))
    return file.getvalue()


def as_json(page: Page) -> str:
    """Everything but the curves: answers, rows, runs with their commands, studies, what could not be read."""
    value = {
        "title": page.title,
        "made": page.made,
        "headline": page.headline,
        "warnings": page.warnings,
        "answers": [{**vars(one), "facts": [vars(fact) for fact in one.facts]} for one in page.answers],
        "ranking": page.ranking,
        "rows": rows(page),
        "studies": [part.section.study for part in page.parts if part.section.study],
        "runs": [vars(run) for run in page.runs],
        "commands": [{"label": kind.label, "seeds": kind.seeds, "command": kind.command}
                     for one in page.configs for kind in one.kinds],
    }  # fmt: skip
    return json.dumps(value, indent=1) + "\n"


def as_markdown(page: Page, files: Mapping[str, Sequence[str]]) -> str:
    """A results page; `files` are those of the plots, by the plots' ids."""
    blocks = [f"# {markdown(page.title)}", page.headline and markdown(page.headline)]
    blocks += [f"> **Note:** {markdown(text)}" for text in page.warnings]
    blocks += [_answer(one) for one in page.answers]
    if page.ranking:
        head = ("method", "tables", "mean rank", "first in", "to KD")
        lines = [(line["label"], line["pairs"], f"{line['rank']:.2f}", line["first"], signed(line["to_kd"]))
                 for line in page.ranking]  # fmt: skip
        blocks.append(_table(head, lines))
    for part in page.parts:
        blocks += _part(part, files)
    for look in page.looked:
        blocks += [f"## {markdown(look.name)}"]
        if look.cka:
            names = [str(name) for name in (look.similarity.get("stages") or {}).get("teacher") or []]
            blocks.append(_table(("CKA", *names), [(name, *map(points, values)) for name, values in look.cka]))
        for data, probe in look.probes.items():
            linear, knn = (probe.get("linear") or {}).get("top1"), (probe.get("knn") or {}).get("top1")
            said = f"linear {share(linear)} %, kNN {share(knn)} %"
            blocks.append(f"Probe on {markdown(data)}: top-1 {said}.")
        for plot in look.plots:
            blocks += _images(plot.id, plot.title, plot.caption, files)
    blocks += _runs(page)
    return "\n\n".join(block for block in blocks if block) + "\n"


def _answer(one: Answer) -> str:
    facts = [f"- {markdown(fact.name)}: **{markdown(fact.value)}**" + (f" ({markdown(fact.note)})" if fact.note else "")
             for fact in one.facts]  # fmt: skip
    return "\n".join([f"**{markdown(one.title)}**", "", *facts, "", markdown(one.sure)])


def _part(part: Part, files: Mapping[str, Sequence[str]]) -> list[str]:
    section = part.section
    blocks = [f"## {markdown(section.title)}", markdown(section.about), f"Data: {markdown(section.data)}."]
    if section.left:
        blocks.append(f"**{section.left[0].upper()}{section.left[1:]}.**")
    if part.study:
        blocks += [*_images(part.study.id, part.study.title, part.study.caption, files), _study(section.study or {})]
    blocks += [f"- {markdown(note)}" for note in section.notes]
    for group in section.groups:
        blocks += [f"### {markdown(group.title)}", _group(group)]
    if section.groups:
        blocks.append(
            "Mean ± sample deviation of the test top-1 % over n seeds; differences in points, paired by seed; * p < "
            "0.05, ** p < 0.01 (two-sided paired t-test from three seeds on, not corrected for the number of methods)."
        )
    for plot in (part.accuracy, part.cost, part.curves):
        blocks += _images(plot.id, plot.title, plot.caption, files) if plot else []
    verb = "Continue" if section.waiting and not section.busy else "Repeat"
    return [*blocks, f"{verb} it:\n\n{markdown_block(section.command, 'sh')}" if section.command else ""]


def _images(key: str, title: str, caption: str, files: Mapping[str, Sequence[str]]) -> list[str]:
    names = files.get(key, ())
    return [*(f"![{markdown(title)}]({name})" for name in names), *([f"*{markdown(caption)}*"] if names else [])]


def _study(study: Values) -> str:
    """What was varied down, series across."""
    series, axis = study.get("series") or [], study.get("x") or {}
    by_x = [{json.dumps(point.get("x")): point for point in one.get("points") or []} for one in series]
    keys = list(dict.fromkeys(key for one in by_x for key in one))
    lines = [(json.loads(key), *(_point(one.get(key) or {}) for one in by_x)) for key in keys]
    return _table((axis.get("label") or axis.get("name") or "", *(one.get("label") for one in series)), lines)


def _point(point: Values) -> str:
    if point.get("mean") is None:
        return ""
    deviation = f" ± {point['deviation']:.2f}" if point.get("deviation") is not None else ""
    return f"{point['mean']:.2f}{deviation} (n {point.get('n', '?')})"


def _group(group: Group) -> str:
    first = "network" if group.kind == "teachers" else "method"
    head = (first, "KD added", "n", "last epoch", "best on validation", "to KD", "to the best", "published", group.unit,
            "stages before, s", "peak MiB")  # fmt: skip
    lines = []
    for row in group.begun:
        count = f"{row['n']}" if row["n"] == row["of"] else f"{row['n']} of {row['of']}"
        last = f"failed: {row['failed']}" if row["failed"] and row["last_mean"] is None else spread(row, "last")
        kd, best = (signed(row.get(key)) + str(row.get(f"{key}_mark") or "") for key in ("vs_kd", "vs_best"))
        costs = (whole(row.get("cpu_seconds")), stages(row.get("stage_seconds")), whole(row.get("peak_mib")))
        cells = (row["label"], added(row.get("kd_weight")), count, last, spread(row, "best"), kd, best)
        lines.append((*cells, points(row["published"]), *costs))
    filled = [i for i in range(len(head)) if i in (0, 2, 3) or any(line[i] for line in lines)]
    table = _table([head[i] for i in filled], [[line[i] for i in filled] for line in lines])
    return table + (f"\n\nNo result yet: {markdown(', '.join(group.waiting))}." if group.waiting else "")


def _runs(page: Page) -> list[str]:
    """The runs that say something which the tables do not, and every command."""
    blocks = []
    if odd := [run for run in page.runs if run.state != "finished"]:
        lines = [(run.folder, run.word, run.epochs, run.problem) for run in odd]
        blocks += ["## Runs without a result", _table(("run", "state", "epochs", "problem"), lines)]
    commands = [f"# {kind.label}, seed {kind.seeds}\n{kind.command}" for one in page.configs for kind in one.kinds]
    if commands:
        block = markdown_block("\n".join(commands), "sh")
        blocks.append(f"<details><summary>Every run's command</summary>\n\n{block}\n\n</details>")
    return blocks


def _table(head: Sequence[Any], lines: Sequence[Sequence[Any]]) -> str:
    texts = [list(map(markdown, head)), ["---"] * len(head), *(list(map(markdown, line)) for line in lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in texts)
