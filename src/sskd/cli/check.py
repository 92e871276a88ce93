"""`sskd check`: whether a method fits two networks and a data set, and what it would cost."""

import re
from collections.abc import Sequence
from typing import Any

from sskd.api import distillation
from sskd.errors import UserError
from sskd.jobs.check import Checked, StageCost, check_distillation
from sskd.methods.find import find_method
from sskd.methods.options import options_of
from sskd.ranges import need_between
from sskd.terminal import Table, Terminal
from sskd.train.choose import title
from sskd.train.step import Execution


def check(measure: bool = True, price: float | None = None, **arguments: Any) -> None:
    """A dry run of a distillation: taps, stages, terms and what does not fit; images/s, hours, memory and cost here.

    The arguments are those of `sskd distill`; `--method all` tries every method.

    Args:
        measure: decode some images and make a few steps on dummy ones, to state time and memory.
        price: of an hour on this machine, to state what the run would cost.
        arguments: see `sskd.distill`.

    Raises:
        UserError: a negative price; whatever `sskd.distill` would refuse.
    """
    need_between("price", price, 0)
    job = distillation(**arguments)
    checked, console = check_distillation(job, measure), Terminal()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    for note in checked.parts.notes:
        say(note)
    console.print(_taps(checked))
    for side, reasons in checked.parts.pair.left_out.items():
        for tap, reason in reasons.items():
            say(f"{side} {tap} cannot be read: {reason}")
    for plan in checked.plans.values():
        for note in plan.notes:
            say(note)
    if checked.stages:
        console.print(_stages(checked))
    if checked.execution and checked.stages:
        console.print(_times(checked, price))
        for text in _lengths(checked, price):
            say(text)
        for text in _conditions(checked, checked.execution):
            say(text)
    if checked.misfits and job.method != "all":
        raise UserError(checked.misfits[job.method])
    for method, reason in checked.misfits.items():
        say(f"DOES NOT FIT {method}: {reason}")


def _taps(checked: Checked) -> Table:
    pair = checked.parts.pair
    table = Table("tap", "student", "teacher", title="Values of one image at the taps")
    for tap in sorted({*pair.student, *(pair.teacher or {})}, key=_order):
        sides = (pair.student, pair.teacher or {})
        table.add_row(tap, *(" x ".join(map(str, side[tap])) if tap in side else "-" for side in sides))
    return table


def _order(tap: str) -> tuple[int, str]:
    known = {"stem": 0, "pooled": 2, "logits": 3}
    return known.get(tap, 1), tap


def _stages(checked: Checked) -> Table:
    table = Table(title="Stages", caption="* once for each teacher", caption_justify="left")
    for head in ("method", "stage", "epochs x steps", "loss", "reads", "trains"):
        table.add_column(head, overflow="fold", no_wrap=head in ("method", "stage", "trains"))
    for method, stages in checked.stages.items():
        for stage in stages:
            loss = " + ".join(f"{weight:g} {name}" for name, weight in stage.terms.items())
            reads = "; ".join(f"{side} {_short(taps)}" for side, taps in stage.taps.items() if taps)
            name = f"{stage.name} *" if stage.shared else stage.name
            count = f"{stage.epochs} x {stage.steps:,}"
            table.add_row(method, name, count, loss, reads, f"{stage.trained:,}")
    return table


def _short(taps: Sequence[str]) -> str:
    """Taps in a few words: neighbouring stages as "stage1-3", "stage1-3.pre"."""
    found, runs = list[str](), list[list[tuple[int, str]]]()
    for tap in taps:
        match = re.fullmatch(r"stage(\d+)(.*)", tap)
        if match and runs and runs[-1] and runs[-1][-1] == (int(match[1]) - 1, match[2]):
            runs[-1].append((int(match[1]), match[2]))
        else:
            runs.append([(int(match[1]), match[2])] if match else [])
            found.append(tap)
    spans = [f"stage{one[0][0]}-{one[-1][0]}{one[0][1]}" if len(one) > 1 else "" for one in runs]
    return ", ".join(span or tap for span, tap in zip(spans, found, strict=True))


def _times(checked: Checked, price: float | None) -> Table:
    heads = ("method", "stage", "a step", "images/s", "decoded/s", "bound by", "an epoch", "evaluate", "in all")
    table = Table(title="Time here", padding=0)
    for head in (*heads, *(["cost"] if price is not None else [])):
        table.add_column(head, overflow="fold")
    for method, stages in checked.stages.items():
        for stage in stages:
            table.add_row(method, stage.name, *_time(stage, price))
    return table


def _time(stage: StageCost, price: float | None) -> list[str]:
    if stage.step is None or stage.hours is None:
        return []
    size = stage.images // stage.steps
    every = stage.decoding is not None and stage.decoding.when != "once"
    decoded = f"{stage.decoding.training:,.0f}" if stage.decoding and every else "-"
    taken = stage.step.seconds
    step = f"{1000 * taken:.0f} ms" if taken < 1 else f"{taken:.1f} s" if taken < 100 else f"{taken:,.0f} s"
    cells = [step, _rate(size / stage.step.seconds), decoded, stage.hours.bound]
    cells += [_duration(hours) for hours in (stage.hours.epoch, stage.hours.evaluation, stage.hours.whole)]
    return cells + ([f"{price * stage.hours.whole:,.2f}"] if price is not None else [])


def _rate(images: float) -> str:
    return f"{images:,.0f}" if images >= 10 else f"{images:.1f}"


def _duration(hours: float | None) -> str:
    if hours is None:
        return "not known"
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.1f} s"


def _lengths(checked: Checked, price: float | None) -> list[str]:
    """What each method's stages come to; and how to shorten one that takes longer than the student's."""
    said = list[str]()
    for method, stages in checked.stages.items():
        hours = [stage.hours.whole for stage in stages if stage.hours]
        if len(stages) < 2 or len(hours) < len(stages):
            continue
        parts = [
            f"{stage.name} {stage.epochs} epoch{'' if stage.epochs == 1 else 's'}"
            f"{' (once for each teacher)' if stage.shared else ''}, {_duration(taken)}"
            for stage, taken in zip(stages, hours, strict=True)
        ]
        whole = f"{_duration(sum(hours))} in all" + (f", for {price * sum(hours):,.2f}" if price is not None else "")
        said.append(f"{method}: {'; '.join(parts)}; {whole}.")
        options = [name for name in options_of(find_method(method)) if name.endswith("_epochs")]
        longest = max(range(len(stages)), key=lambda i: hours[i])
        if longest < len(stages) - 1 and len(options) == 1:
            stage, fewer = stages[longest], max(1, int(stages[longest].epochs * hours[-1] / hours[longest]))
            share = f"{hours[longest] / sum(hours):.0%} of the time is {stage.name}'s"
            if fewer < stage.epochs:
                said.append(f"{share}: with --options.{options[0]} {fewer} it takes as long as {stages[-1].name}.")
    return said


def _conditions(checked: Checked, execution: Execution) -> list[str]:
    """What the times were measured on, and what they leave out."""
    found = [stage for stages in checked.stages.values() for stage in stages if stage.step]
    threads = f"{execution.threads} thread{'' if execution.threads == 1 else 's'}"
    fewest = min(stage.step.sample for stage in found if stage.step)
    size = min(stage.images // stage.steps for stage in found)
    sampled = f" (sampled with {fewest} or more of them)" if fewest < size else ""
    said = [
        f"Steps of {size} images{sampled} on {execution.device}, {threads}, {title(execution)}, not compiled. The most "
        f"memory held while measuring: {checked.peak_mib:,} MiB{', for so many images' if sampled else ''}."
    ]
    if any(one.hours and one.hours.evaluation is None for one in found):
        said.append(
            "Nobody says how many images the test stream has: the whole time and its cost leave evaluation out."
        )
    for method, stages in checked.stages.items():
        refused = [f"{one.name} ({one.step.refused})" for one in stages if one.step and one.step.refused]
        said += [f"{method}: no CUDA graph is made of {', '.join(refused)}."] if refused else []
    for one in dict.fromkeys(stage.decoding for stage in found if stage.decoding):
        crops = f"{one.crops} crop{'' if one.crops == 1 else 's'} of {one.size} pixels of each image"
        rates = f"{one.training:,.0f} images/s with {crops}, {one.evaluation:,.0f} for evaluation"
        how = f"{one.workers} workers" if one.when == "workers" else "threads"
        said.append(f"Decoding: {rates} ({how}; {one.sample} images were sampled).")
        if one.when == "once":
            said.append("The photographs fit in memory and are decoded once, which the times leave out.")
        elif not execution.device.startswith("cuda"):
            said.append("The step and the decoding share the cores: their times are added up.")
        else:
            said.append("Decoding goes on beside the step: the slower of the two counts.")
    return said
