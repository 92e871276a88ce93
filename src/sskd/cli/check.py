"""`sskd check`: whether a method fits two networks and a data set, and what it would cost."""

from typing import Any

from rich.console import Console
from rich.table import Table

from sskd.api import distillation
from sskd.errors import UserError
from sskd.jobs.check import Checked, StageCost, check_distillation
from sskd.train.choose import title


def check(measure: bool = True, **arguments: Any) -> None:
    """Look at a distillation before any time is spent on it: taps, stages, terms, memory, time, and what does not fit.

    The arguments are those of `sskd distill`; `--method all` tries every method.

    Args:
        measure: make a few steps on dummy images, to state time and memory.
        arguments: see `sskd.distill`.
    """
    job = distillation(**arguments)
    checked, console = check_distillation(job, measure), Console()

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
        count = checked.execution.threads
        threads = f"{count} thread{'' if count == 1 else 's'}"
        where = f"{checked.execution.device}, {threads}, {title(checked.execution)}"
        say(
            f"Steps of {job.training.batch_size} images on {where}, eager; hours without evaluation and decoding. "
            f"The most memory held while measuring: {checked.peak_mib:,} MiB."
        )
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
    table = Table("method", "stage", "epochs x steps", "loss", "reads", "trains", "a step", "in all", title="Stages")
    for method, stages in checked.stages.items():
        for stage in stages:
            loss = " + ".join(f"{weight:g} {name}" for name, weight in stage.terms.items())
            reads = "; ".join(f"{side} {', '.join(taps)}" for side, taps in stage.taps.items() if taps)
            name = f"{stage.name} (once for each teacher)" if stage.shared else stage.name
            count = f"{stage.epochs} x {stage.steps:,}"
            table.add_row(method, name, count, loss, reads, f"{stage.trained:,}", *_time(stage))
    return table


def _time(stage: StageCost) -> tuple[str, str]:
    if stage.seconds is None or stage.hours is None:
        return "", ""
    return (
        f"{1000 * stage.seconds:.0f} ms",
        f"{stage.hours:.1f} h" if stage.hours >= 1 else f"{60 * stage.hours:.1f} min",
    )
