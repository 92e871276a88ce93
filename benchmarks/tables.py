"""Tables of measurements, from the JSON that the benchmarks wrote; no number is typed by hand.

`python -m benchmarks.tables results/step-cpu.json ...` prints Markdown. `--into docs/performance.md` puts each file's
tables between its pair of marks there: `<!-- results/step-cpu.json -->` and `<!-- end -->`.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import scale
from benchmarks.lines import Lines, Row, machine, markdown, spread
from benchmarks.variants import WITH_INPUT


def step_table(report: dict[str, Any]) -> list[Lines]:
    """One table for each pair of networks."""
    settings, tables = report["settings"], []
    head = (
        "",
        "ms per step, median [quartiles]",
        "images/s",
        f"times {WITH_INPUT}",
        "without its input",
        "times torchdistill",
        "memory of the step, MiB",
        "of the published one's",
        "the process's peak, MiB",
    )
    timed = ("hours per epoch",) if settings.get("epoch") else ()
    for pair, values in report["parts"].items():
        rows = []
        for name, row in values.items():
            if "failed" in row:
                rows.append((name, "failed", *[""] * (7 + len(timed))))
                continue
            ratios = [
                spread(row[key], 2) if key in row else "" for key in ("times_with_input", "times_alone", "times_peer")
            ]
            share = f"{row['memory_share']:.2f}" if "memory_share" in row else ""
            memory = (f"{row['step_mib']:.0f}", share, f"{row['peak_mib']:.0f}")
            hours = (f"{row['hours_per_epoch']:.2f}",) if timed else ()
            rows.append((name, spread(row["ms_per_step"], 1), f"{row['images_per_s']:.1f}", *ratios, *memory, *hours))
        side = f" of {settings['side']} pixels" if settings.get("side", 32) != 32 else ""
        title = (
            f"{pair.replace(':', ' -> ')}, {settings['batch_size']} images x 4 views{side}; "
            f"{settings['rounds']} rounds of {settings['steps']} steps, {settings['workers']} workers; "
            f"{machine(report, pair)}"
        )
        tables.append(Lines(title, head + timed, tuple(rows)))
    return tables


def memory_table(report: dict[str, Any]) -> list[Lines]:
    """One table for each pair of networks; shares are of the first variant."""
    settings, tables = report["settings"], []
    head = ("", "memory of the step, MiB", "share", "at most held, MiB", "of it by tensors, MiB", "ms per step")
    for pair, values in report["parts"].items():
        rows, whole = list[Row](), next(iter(values.values())).get("step_mib")
        for name, row in values.items():
            if "failed" in row:
                rows.append((name, "failed", *[""] * 4))
                continue
            share = f"{row['step_mib'] / whole:.2f}" if whole else ""
            held = (f"{row['step_mib']:.0f}", share, f"{row['peak_mib']:.0f}")
            tensors = f"{row['tensors_mib']:.0f}" if "tensors_mib" in row else ""
            rows.append((name, *held, tensors, spread(row["ms_per_step"], 1)))
        teacher, student, side = pair.split(":")
        views = f"{settings['batch_size']} images x 4 views of {side} pixels"
        tables.append(Lines(f"{teacher} -> {student}, {views}; {machine(report, pair)}", head, tuple(rows)))
    return tables


def _plain(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def constants_table(report: dict[str, Any]) -> list[Lines]:
    """One row for each constant; then what was assumed, and what is reckoned from both."""
    rows = [
        (part.replace(":", " -> "), name.replace("_per_s", "/s").replace("_", " "), _plain(value))
        for part, row in report["parts"].items()
        for name, value in row.items()
    ]
    title = f"Measured. Steps of {report['settings']['batch_size']} images x 4 views; {machine(report)}"
    tables = [Lines(title, ("", "constant", "value"), tuple(rows))]
    if scale.STEP in report["parts"]:
        assumed = tuple((name, one.source, one.said) for name, one in scale.ASSUMED.items())
        tables.append(Lines("Assumed", ("", "from", "value"), assumed))
        tables.append(Lines("Reckoned", ("", "from", "value"), tuple(scale.reckoned(report["parts"]))))
    return tables


def many_table(report: dict[str, Any]) -> list[Lines]:
    """One row for each number of processes and kind of similarity."""
    settings, parts = report["settings"], report["parts"]
    rows = [("skipped", parts["skipped"], *[""] * 3)] if "skipped" in parts else []
    one = parts.get("one process")
    for part, row in parts.items():
        if part != "skipped":
            times = f"{row['images_per_s'] / one['images_per_s']:.2f}" if one else ""
            rate = f"{row['images_per_s']:.1f}"
            rows.append((part, spread(row["ms_per_step"], 1), rate, times, f"{row['peak_mib']:.0f}"))
    title = (
        f"{settings['pair'].replace(':', ' -> ')}, {settings['batch_size']} images x 4 views of {settings['side']} "
        f"pixels for each process; {machine(report)}"
    )
    head = ("", "ms per step, median [quartiles]", "images/s together", "times one", "peak of the first, MiB")
    return [Lines(title, head, tuple(rows))]


def pipeline_table(report: dict[str, Any]) -> list[Lines]:
    """Rates of the data paths, then what was timed in milliseconds."""
    settings, parts = report["settings"], report["parts"]
    rates = tuple((name, spread(row["images_per_s"], 0)) for name, row in parts.items() if "images_per_s" in row)
    title = f"Four views of each of {settings['batch_size']} images; {machine(report)}"
    tables = [Lines(title, ("", "images/s, median [quartiles]"), rates)]
    jpeg = f"One JPEG of {settings['width']} x {settings['height']} pixels, crops of {settings['size']}"
    pair = f"{settings['teacher']} -> {settings['student']}, compiled"
    for name, title in (("ms of one JPEG", jpeg), ("ms per step", pair)):
        if name in parts:
            rows = parts[name].items()
            cells = tuple((key, f"{v:.2f}" if isinstance(v, float) else spread(v, 2)) for key, v in rows)
            tables.append(Lines(title, ("", "ms"), cells))
    return tables


def growth_table(report: dict[str, Any]) -> list[Lines]:
    """One row for each kind of cost along each axis."""
    kinds = {"ms": "ms", "step_mib": "MiB of the step", "before_mib": "MiB held before it"}
    rows = []
    for part, row in report["parts"].items():
        for kind, name in kinds.items():
            if kind in row:
                costs = " · ".join(f"{size:,}: {cost:.3g}" for size, cost in zip(row["sizes"], row[kind], strict=True))
                power = row["exponents"].get(kind)
                rows.append((f"{part}, {name}", costs, "" if power is None else f"{power:.2f}"))
    settings = report["settings"]
    title = f"{settings['teacher']} -> {settings['student']}; {machine(report)}"
    return [Lines(title, ("", "size: cost", "exponent"), tuple(rows))]


def roofline_table(report: dict[str, Any]) -> list[Lines]:
    """One table for each pair and precision."""
    rates = report["parts"]["rates"]
    said = ", ".join(f"{name.replace('_', ' ')} {value / 1e9:.0f}" for name, value in rates.items())
    head = ("", "GFLOP", "MB moved, unfused", "bound, ms", "profiled, ms", "bound / profiled")
    tables = []
    for part, found in report["parts"].items():
        if part == "rates":
            continue
        rows = []
        for kind, row in sorted(found["kinds"].items(), key=lambda item: -item[1]["profiled_ms"]):
            share = f"{row['bound_ms'] / row['profiled_ms']:.2f}" if row["profiled_ms"] else ""
            counts = (f"{row['flops'] / 1e9:.1f}", f"{row['bytes'] / 1e6:.0f}")
            rows.append((kind, *counts, f"{row['bound_ms']:.1f}", f"{row['profiled_ms']:.1f}", share))
        title = (
            f"{part.replace(':', ' -> ')}, eager: {spread(found['ms_per_step'], 1)} ms per step, "
            f"{found['share']:.0%} of the roofline, {found['share_of_matmul']:.0%} of the matmul rate. "
            f"{_replayed(found)}"
            f"Rates (GFLOP/s, GB/s): {said}; {machine(report, part)}"
        )
        tables.append(Lines(title, head, tuple(rows)))
    return tables


def _replayed(found: dict[str, Any]) -> str:
    """The step as a CUDA graph, which a GPU's is run as."""
    if "replayed" not in found:
        return ""
    times, kernels = found["replayed"]["ms_per_step"], found["replayed"]["kernels_ms"]
    return (
        f"Compiled, as one CUDA graph: {spread(times, 2)} ms per step, {found['bound_ms'] / times[1]:.0%} of the "
        f"roofline of the unfused step; the GPU computes for {kernels:.2f} ms of it. "
    )


def whole_table(report: dict[str, Any]) -> list[Lines]:
    """Stage by stage, and all of it."""
    found, rows = report["parts"]["pipeline"], []
    for stage, row in found["stages"].items():
        spent = [f"{row[key]:.0f}" for key in ("training_seconds", "evaluation_seconds")]
        whole = "" if row["projected_seconds"] is None else f"{row['projected_seconds'] / 60:.1f}"
        rate = "" if row["images_per_s"] is None else f"{row['images_per_s']:.0f}"
        rows.append((stage, f"{row['epochs']} of {row['planned']}", *spent, rate, whole))
    total = found["projected_seconds"]
    rows.append(("together", "", "", "", "", "" if total is None else f"{total / 60:.1f}"))
    settings = report["settings"]
    title = f"{settings['teacher']} -> {settings['student']} on {settings['data']}; {machine(report)}"
    head = ("", "epochs", "seconds of training", "of evaluation", "images/s", "minutes for all epochs at this rate")
    return [Lines(title, head, tuple(rows))]


def kernels_table(report: dict[str, Any]) -> list[Lines]:
    """One row for each kernel: the slow way, the way around it, their ratio."""
    rows = []
    for part, row in report["parts"].items():
        (slow, slow_ms), (way, way_ms) = row["ms"].items()
        cells = (f"{slow}: {spread(slow_ms, 1)}", f"{way}: {spread(way_ms, 1)}", spread(row["times"], 1))
        rows.append((part, *cells))
    title = f"{report['settings']['count']} maps, channels last; {machine(report)}"
    return [Lines(title, ("", "ms", "ms on the way around", "times as long"), tuple(rows))]


def contents_table(report: dict[str, Any]) -> list[Lines]:
    """Seconds, by way."""
    settings, parts = report["settings"], report["parts"]
    size = next(iter(parts.values()))["bytes"] / 1e9
    title = (
        f"{settings['images']:,} photographs, {settings['each']} in a shard, a twentieth to test with, {size:.2f} GB; "
        f"{machine(report)}"
    )
    rows = tuple((name, spread(row["seconds"], 2)) for name, row in parts.items())
    return [Lines(title, ("tables of contents", "seconds, median [quartiles]"), rows)]


TABLES: dict[str, Callable[[dict[str, Any]], list[Lines]]] = {
    "step": step_table,
    "pipeline": pipeline_table,
    "growth": growth_table,
    "roofline": roofline_table,
    "whole": whole_table,
    "memory": memory_table,
    "constants": constants_table,
    "many": many_table,
    "kernels": kernels_table,
    "contents": contents_table,
}


def filled(text: str, path: Path, root: Path) -> str:
    """The document with a file's tables between its marks."""
    report = json.loads(path.read_text())
    tables = "\n\n".join(markdown(lines) for lines in TABLES[report["benchmark"]](report))
    mark = f"<!-- {path.resolve().relative_to(root.resolve())} -->"
    pattern = re.escape(mark) + r".*?<!-- end -->"
    found, count = re.subn(
        pattern, lambda _: f"{mark}\n{tables}\n\n`{report['command']}`\n<!-- end -->", text, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"the document has {count} places for {mark}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="what benchmarks wrote")
    parser.add_argument("--into", type=Path, help="a document with marks for these files")
    given = parser.parse_args()
    if given.into is None:
        reports = [json.loads(path.read_text()) for path in given.files]
        print("\n\n".join(markdown(lines) for one in reports for lines in TABLES[one["benchmark"]](one)))
        return
    text = given.into.read_text()
    for path in given.files:
        text = filled(text, path, Path(__file__).parents[1])
    given.into.write_text(text)


if __name__ == "__main__":
    main()
