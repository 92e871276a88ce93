"""The answer first: which method, how much better, at what cost, how sure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sskd.bench.results import ALONE_LABEL, KD_LABEL, mean_and_deviation
from sskd.report.found import Values
from sskd.report.groups import Group
from sskd.report.plots import cost_of, students
from sskd.report.sections import Section

SERIES = 8  # of a study, in the summary


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
    if not rows or group.kind != "methods":
        return None
    best, by_label = rows[0], {str(row["label"]): row for row in rows}
    kd, alone = by_label.get(KD_LABEL), by_label.get(ALONE_LABEL)
    name = f"best: {best['label']}" if len(rows) > 1 else str(best["label"])
    facts = [Fact(f"{_accuracy(best)} %", name, _seeds(best))]
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
        like = base_cost and kd is not best and kd and kd["unit"] == best["unit"]
        note = f"{cost / base_cost:.1f} × that of KD" if base_cost and like else ""
        facts.append(Fact(_duration(cost), f"{str(best['unit']).split()[0]} time of {best['label']}", note))
    return Answer(group.title, "; ".join(said) + ".", facts, _certainty(rows))


def study_answer(study: Values) -> Answer | None:
    """What a study says: each series from the first to the last value of a number, or its best of several kinds."""
    axis, facts, fewest = study.get("x") or {}, list[Fact](), list[int]()
    measured = {
        str(one.get("label")): [point for point in one.get("points") or [] if point.get("mean") is not None]
        for one in study.get("series") or []
    }
    numbers = all(isinstance(point.get("x"), int | float) for points in measured.values() for point in points)
    for label, points in measured.items():
        if len(points) > 1:
            facts.append(_change(label, points) if numbers else _best_of(label, points))
            fewest.append(min(int(point.get("n") or 1) for point in points))
    if not facts:
        return None
    about = f"Test top-1 % by {axis.get('label') or axis.get('name')}; "
    about += "from the first to the last value, in points. " if numbers else "the best of them, and the next. "
    seeds = f"{min(fewest)} seed{'' if min(fewest) == 1 else 's'} at least"
    sure = f"{about}{seeds}, no test was made: differences under half a point mean nothing."
    return Answer(str(study.get("question") or study.get("study") or "Study"), "", facts[:SERIES], sure)


def _change(label: str, points: Sequence[Values]) -> Fact:
    first, last = points[0], points[-1]
    ours, theirs = last.get("values") or {}, first.get("values") or {}
    paired = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    change = sum(paired) / len(paired) if paired else last["mean"] - first["mean"]
    note = f"{first['mean']:.2f} at {first['x']:g}, {last['mean']:.2f} at {last['x']:g}"
    on = f"; paired on {len(paired)} seed{'' if len(paired) == 1 else 's'}" if paired else ""
    return Fact(_signed(change), label, note + on)


def _best_of(label: str, points: Sequence[Values]) -> Fact:
    best, second = sorted(points, key=lambda point: -float(point["mean"]))[:2]
    return Fact(f"{best['mean']:.2f} %", f"{label}: {best['x']}", f"next: {second['x']}, {second['mean']:.2f} %")


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
    if left < 0.005:  # as it is shown
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
    """Methods over several tables: mean rank, first places, mean difference to KD; the best first.

    Methods that have finished in all tables are ranked, among themselves: a first place where the better methods are
    missing is none. Empty where fewer than two have.
    """
    ranks: dict[str, list[int]] = {}
    gains: dict[str, list[float]] = {}
    everywhere = set.intersection(*({str(row["label"]) for row in students(group)} for group in groups))
    for group in groups if len(everywhere) > 1 else ():
        rows = [row for row in students(group) if str(row["label"]) in everywhere]
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
    return sorted(lines, key=lambda line: float(line["rank"]))


def comparable(groups: Sequence[Group]) -> list[Group]:
    """Those in which two methods or more have finished, trained alike."""
    return [group for group in groups if group.kind == "methods" and len(students(group)) > 1]


def headline(sections: Sequence[Section]) -> str:
    """One sentence over all."""
    plain = [one for one in sections if not one.study] or [one for one in sections if _compares_methods(one)]
    if not plain and len(sections) > 1:
        return f"{len(sections)} studies, each of one method in several ways: what each says is below."
    plain = plain or list(sections)
    groups = comparable([group for section in plain for group in section.groups])
    if not groups:
        return _nothing_compared([group for section in plain for group in section.groups])
    so_far = "So far, " if any(section.waiting for section in plain) else ""
    if len(groups) == 1 and (only := answer(groups[0])):
        conditions = groups[0].conditions
        at = f"Of the students with {conditions}, " if conditions else ""
        return (so_far + (at[:1].lower() if so_far else at[:1]) + at[1:]) + only.sentence
    if not (ranked := ranking(groups)):
        return f"{so_far}{len(groups)} tables compare methods, no two of which are in all of them: see each table."
    best = ranked[0]
    where = f"first in {best['first']} of them, mean rank {best['rank']:.1f}"
    gain = f", on average {_signed(best['to_kd'])} points to KD" if best["to_kd"] is not None else ""
    over = "So far, over" if so_far else "Over"
    return f"{over} {len(groups)} tables, {best['label']} ranks best: {where}{gain}."


def _nothing_compared(groups: Sequence[Group]) -> str:
    kinds = {group.kind for group in groups if group.begun}
    if kinds == {"teachers"}:
        return "Teachers alone: no student has been trained yet."
    if "apart" in kinds:
        return "No two methods were trained under the same conditions, so none is called the best."
    return "No two methods can be compared yet."


def _compares_methods(section: Section) -> bool:
    """Whether a study has several methods; the rows of others are one method in several ways, and rank nothing."""
    series = (section.study or {}).get("series") or []
    return len({one.get("method") for one in series}) > 1
