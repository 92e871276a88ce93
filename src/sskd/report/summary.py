"""The answer first: which method, how much better, at what cost, how sure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sskd.bench.results import ALONE_LABEL, KD_LABEL, mean_and_deviation
from sskd.report.found import Values
from sskd.report.plots import cost_of, students
from sskd.report.sections import Group, Section


@dataclass(frozen=True)
class Fact:
    """A number that stands out, what it is, and what to know about it."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """What one group of rows says."""

    title: str
    sentence: str
    facts: Sequence[Fact]
    sure: str


def answer(group: Group) -> Answer | None:
    """The answer of a pair; None where nothing has finished."""
    rows = students(group)
    if not rows:
        return None
    best, by_label = rows[0], {str(row["label"]): row for row in rows}
    kd, alone = by_label.get(KD_LABEL), by_label.get(ALONE_LABEL)
    facts = [Fact(f"{_accuracy(best)} %", f"best: {best['label']}", _seeds(best))]
    said = [f"{best['label']} is best, with {_accuracy(best)} % test top-1"]
    for base, name in ((kd, "KD"), (alone, "the student alone")):
        if base is not None and base is not best:
            difference, over = _against(best, base, group)
            said.append(f"{_signed(difference)} points to {name} ({_accuracy(base)})")
            facts.append(Fact(_signed(difference), f"points to {name}", over))
    teacher = next((row for row in group.rows if row["label"] == "teacher" and row["last_mean"] is not None), None)
    if teacher is not None:
        gap = _gap(best, alone, teacher)
        facts.append(Fact(f"{teacher['last_mean']:.2f} %", f"teacher {teacher['teacher']}", gap))
    cost, base_cost = cost_of(best), cost_of(kd) if kd else None
    if cost:
        note = f"{cost / base_cost:.1f} × that of KD" if base_cost and kd is not best else ""
        facts.append(Fact(_duration(cost), f"computing of {best['label']}", note))
    return Answer(group.title, "; ".join(said) + ".", facts, _certainty(rows))


def _accuracy(row: Values) -> str:
    deviation = row["last_deviation"]
    return f"{row['last_mean']:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def _seeds(row: Values) -> str:
    n = int(row["n"])
    return f"{n} seed{'' if n == 1 else 's'}" + (f" of {row['of']}" if row["of"] != n else "")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _against(row: Values, base: Values, group: Group) -> tuple[float, str]:
    """A difference, paired by seed where the table has it, and how it was made."""
    paired = row.get("vs_kd") if base["label"] == KD_LABEL else None
    if paired is None and base.get("vs_best") is not None and _is_first(row, group):
        paired = -base["vs_best"]
    if paired is not None:
        return float(paired), "paired by seed"
    return float(row["last_mean"] - base["last_mean"]), "difference of means"


def _is_first(row: Values, group: Group) -> bool:
    return bool(students(group)[0] is row)


def _gap(best: Values, alone: Values | None, teacher: Values) -> str:
    left = teacher["last_mean"] - best["last_mean"]
    if left <= 0:
        return "the student is as good, or better"
    if alone is None or teacher["last_mean"] <= alone["last_mean"]:
        return f"{left:.2f} points above the student"
    share = (best["last_mean"] - alone["last_mean"]) / (teacher["last_mean"] - alone["last_mean"])
    return f"{share:.0%} of the gap closed"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _certainty(rows: Sequence[Values]) -> str:
    """How sure the first place is, in words."""
    best = rows[0]
    if len(rows) == 1:
        return "Only one method has finished: there is nothing to compare it with."
    second = rows[1]
    gap = best["last_mean"] - second["last_mean"]
    lead = f"{second['label']} is next, {gap:.2f} points behind. "
    p = second.get("vs_best_p")
    if p is None:
        fewest = min(int(best["n"]), int(second["n"]))
        seeds = f"{fewest} seed{'' if fewest == 1 else 's'}"
        far = ", and this is one" if gap < 0.5 else "; this one is larger, but not certain"
        return f"{lead}With {seeds} no test was made: differences under half a point mean nothing{far}."
    sure = "unlikely to be chance" if p < 0.05 else "may well be chance"
    return (
        f"{lead}The lead is {sure} (paired t-test over {best['n']} seeds, p = {p:.2g}, not corrected for many methods)."
    )


def ranking(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Methods over several pairs: mean rank, first places, mean difference to KD; the best first."""
    ranks: dict[str, list[int]] = {}
    gains: dict[str, list[float]] = {}
    for group in groups:
        rows = students(group)
        for place, row in enumerate(rows, 1):
            ranks.setdefault(str(row["label"]), []).append(place)
            if row.get("vs_kd") is not None:
                gains.setdefault(str(row["label"]), []).append(row["vs_kd"])
    lines = [
        {
            "label": label,
            "pairs": len(places),
            "rank": sum(places) / len(places),
            "first": places.count(1),
            "to_kd": mean_and_deviation(gains.get(label, []))[0],
        }
        for label, places in ranks.items()
    ]
    return sorted(lines, key=lambda line: (-int(line["pairs"] > len(groups) / 2), line["rank"]))


def comparable(groups: Sequence[Group]) -> list[Group]:
    """Those in which two methods or more have finished."""
    return [group for group in groups if len(students(group)) > 1]


def headline(sections: Sequence[Section]) -> str:
    """One sentence over all."""
    groups = comparable([group for section in sections for group in section.groups])
    if not groups:
        return "No two methods can be compared yet."
    if len(groups) == 1 and (only := answer(groups[0])):
        return only.sentence
    best = ranking(groups)[0]
    where = f"first in {best['first']} of them, mean rank {best['rank']:.1f}"
    gain = f", on average {_signed(best['to_kd'])} points to KD" if best["to_kd"] is not None else ""
    return f"Over {len(groups)} tables, {best['label']} ranks best: {where}{gain}."
