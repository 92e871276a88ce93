"""Tables of runs that no bench lists: put together from what each run says of itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from sskd.bench.labels import Labels
from sskd.bench.results import ALONE_LABEL, Cell
from sskd.bench.table import tabulated
from sskd.bench.task import Task
from sskd.report.conditions import (
    SEEN,
    conditions_of,
    described,
    differing,
    key_of,
    last_parts,
    method_of,
    named_apart,
    options_of,
    seed_of,
    varying_options,
    without_teaching,
)
from sskd.report.found import FoundRun, Values
from sskd.report.groups import Group, in_order, whole

_WITH_TEACHER = {"teacher_data": "full", "teacher_labels": "clean"}  # what no student without one differs in


@dataclass
class Tables:
    """The tables of some runs; names and methods of the runs, by folder."""

    groups: list[Group] = field(default_factory=list)
    labels: dict[Path, str] = field(default_factory=dict)  # unique but for the seed
    methods: dict[Path, str] = field(default_factory=dict)  # the same under all conditions: what colours stand for
    teachers: set[Path] = field(default_factory=set)


@dataclass
class _Alike:
    """Students of one network, one teacher and the same conditions."""

    student: str
    architecture: str  # of the teacher; empty where there is none
    weights: str  # what the teacher is known by
    conditions: Values
    runs: list[FoundRun] = field(default_factory=list)


def tables_of(runs: Sequence[FoundRun]) -> Tables:
    """Students by network, teacher and conditions; teachers apart from them."""
    readable = [run for run in runs if run.config]
    teachers = _teachers(readable)
    made = Tables(teachers={run.folder for run in teachers})
    students = [run for run in readable if run.folder not in made.teachers]
    alike = _alike(students)
    names, full = _names([one.runs for one in alike])
    by_network: dict[str, list[_Alike]] = {}
    for one in alike:
        by_network.setdefault(one.student, []).append(one)
    for several in by_network.values():
        made.groups += _tables(several, names, full, teachers, made)
    shown = {one.weights for one in alike}
    if teachers and not all(shown & _addresses(run) for run in teachers):
        made.groups.append(_teachers_table(teachers, made))
    for run in teachers:
        made.labels.setdefault(run.folder, f"teacher {run.arguments.get('network', '')}".strip())
    return made


def _teachers(runs: Sequence[FoundRun]) -> list[FoundRun]:
    """The runs that teach, or were trained to: those that a student names, and trials of such networks."""
    taught = {_taught_by(run) for run in runs} - {None}
    distilled = {run.arguments.get("network") for run in runs if run.arguments.get("teacher")}
    teaching = {(run.config.get("teacher") or {}).get("architecture") for run in runs} - {None}

    def teaches(run: FoundRun) -> bool:
        if run.is_teacher or taught & _addresses(run):
            return True
        if method_of(run) != ALONE_LABEL or run.arguments.get("teacher"):
            return False
        network = run.arguments.get("network")
        if network in distilled and network not in teaching:
            return False  # the student alone, whichever command trained it
        words = str((run.config.get("environment") or {}).get("command") or "").split()
        return "teacher" in words[1:2] or (network in teaching and network not in distilled)

    return [run for run in runs if teaches(run)]


def _alike(students: Sequence[FoundRun]) -> list[_Alike]:
    """Students in groups. One that no teacher has a part in is compared with all who share its other conditions."""
    found: dict[str, _Alike] = {}
    alone = [run for run in students if method_of(run) == ALONE_LABEL or not run.arguments.get("teacher")]
    apart = {run.folder for run in alone}
    for run in students:
        if run.folder not in apart:
            one = _Alike(_network(run), _architecture(run), _taught_by(run) or "", conditions_of(run))
            found.setdefault(_key(one), one).runs.append(run)
    taught = list(found.values())
    for run in alone:
        one = _Alike(_network(run), _architecture(run), _taught_by(run) or "", without_teaching(conditions_of(run)))
        like = key_of(one.conditions)
        beside = [other for other in taught
                  if other.student == one.student and key_of(without_teaching(other.conditions)) == like]  # fmt: skip
        if not beside:
            whose = {other.architecture for other in taught if other.student == one.student}
            one.architecture = one.architecture or (whose.pop() if len(whose) == 1 else "")
            beside = [found.setdefault(_key(one), one)]
        for other in beside:
            other.runs.append(run)
    return list(found.values())


def _key(one: _Alike) -> str:
    return key_of({"student": one.student, "teacher": one.architecture, "weights": one.weights, **one.conditions})


def _names(groups: Sequence[Sequence[FoundRun]]) -> tuple[dict[Path, str], dict[Path, str]]:
    """Each run's method with the options that set it apart under the same conditions, short and in full."""
    varying, short, full = varying_options(groups), dict[str, str](), dict[Path, str]()
    options: dict[str, dict[Path, Values]] = {}
    for run in (run for group in groups for run in group):
        options.setdefault(method_of(run), {})[run.folder] = options_of(run)
    for method, values in options.items():
        for folder, texts in described(values, varying[method]).items():
            short[str(folder)], full[folder] = (f"{method} ({text})" if text else method for text in texts)
    for group in groups:
        short |= named_apart(group, {str(run.folder): short[str(run.folder)] for run in group})
    return {Path(folder): label for folder, label in short.items()}, full


def _tables(several: Sequence[_Alike], names: dict[Path, str], full: dict[Path, str], teachers: Sequence[FoundRun],
            made: Tables) -> list[Group]:  # fmt: skip
    """The tables of one student network; those of a single method are put together, where there are several tables."""
    groups, single = list[Group](), list[Group]()
    pairs: dict[str, list[_Alike]] = {}
    for one in several:
        pairs.setdefault(one.architecture, []).append(one)
    for architecture, members in pairs.items():
        varying = differing([{**_WITH_TEACHER, **one.conditions} for one in members])
        shown = [name for name in varying if name not in SEEN]
        places = _places(members)
        alone = list[Group]()
        texts = described({_key(one): one.conditions for one in members}, shown)
        for one in members:
            conditions, details = texts[_key(one)]
            place = places.get(one.weights, "")
            for run in one.runs:
                seen = _seen(run).short if set(SEEN) & set(varying) else ""
                by = f"by {place}" if place and run.arguments.get("teacher") else ""
                made.methods[run.folder] = names[run.folder]
                made.labels[run.folder] = ", ".join(x for x in (names[run.folder], seen, conditions, by) if x)
            rows = in_order(_rows(one, names, full, teachers))
            teacher = f"{architecture} ({place})" if place else architecture
            group = Group(teacher, one.student, _seen(one.runs[0]), rows, conditions, details)
            if len(members) > 1 and len({names[run.folder] for run in one.runs}) == 1:
                alone.append(_renamed(group, made.labels[one.runs[0].folder]))
            else:
                groups.append(group)
        single += [_put_together(architecture, alone)] if alone else []
    return groups + single


def _renamed(group: Group, label: str) -> Group:
    """With the conditions in the label of its only method."""
    rows = [row if row["label"] == "teacher" else
            {**row, "label": label, "details": ", ".join(x for x in (row.get("details"), group.details) if x)}
            for row in group.rows]  # fmt: skip
    return replace(group, rows=rows)


def _put_together(architecture: str, groups: Sequence[Group]) -> Group:
    """Tables of one method each as one table; with their teacher, where all have the same."""
    taught = [next((row for row in group.rows if row["label"] == "teacher"), None) for group in groups]
    shown = [taught[0]] if taught[0] and all(row == taught[0] for row in taught) else []
    rows = [row for group in groups for row in group.rows if row["label"] != "teacher"]
    return Group(architecture, groups[0].student, Labels(), in_order([*shown, *rows]), kind="apart")


def _places(members: Sequence[_Alike]) -> dict[str, str]:
    """Short names of where a pair's teachers came from, by their weights; none where all have the same."""
    found = {one.weights: Path(str((run.arguments.get("teacher") or {}).get("place") or one.weights[:8]))
             for one in members if one.weights for run in one.runs[:1]}  # fmt: skip
    return dict(zip(found, last_parts(list(found.values())), strict=True)) if len(found) > 1 else {}


def _rows(one: _Alike, names: dict[Path, str], full: dict[Path, str], teachers: Sequence[FoundRun]) -> list[Values]:
    teacher = next((run for run in teachers if one.weights in _addresses(run)), None)
    cells = [_cell(Task(teacher.folder.as_posix(), "teacher", teacher.folder, {}), teacher)] if teacher else []
    details = {names[run.folder]: full[run.folder] for run in one.runs}
    for run in one.runs:
        seen = _seen(run).facts
        facts = {"teacher": one.architecture, "student": one.student, "method": run.arguments.get("method"),
                 "seed": seed_of(run), "label": names[run.folder], **seen}  # fmt: skip
        task = Task(run.folder.as_posix(), "student", run.folder, {}, teacher.folder.as_posix() if teacher else None)
        cells.append(_cell(replace(task, facts=facts), run))
    rows = whole(tabulated(cells, {}))
    return [{**row, "details": text} if (text := details.get(str(row["label"]), row["label"])) != row["label"] else row
            for row in rows]  # fmt: skip


def _teachers_table(teachers: Sequence[FoundRun], made: Tables) -> Group:
    """One row for each network and its conditions. They are looked over, not ranked: no method is compared."""
    kinds: dict[str, list[FoundRun]] = {}
    for run in teachers:
        kinds.setdefault(_network(run), []).append(run)
    short, full = dict[str, str](), dict[str, str]()
    for network, runs in kinds.items():
        conditions = {str(run.folder): without_teaching(conditions_of(run)) for run in runs}
        for folder, texts in described(conditions, differing(conditions.values())).items():
            short[folder], full[folder] = (f"{network} ({text})" if text else network for text in texts)
    short = named_apart(teachers, short)
    cells, details = list[Cell](), dict[str, str]()
    for run in teachers:
        label = short[str(run.folder)]
        made.labels[run.folder], details[label] = f"teacher {label}", full[str(run.folder)]
        facts = {"teacher": "", "student": "", "label": label, "method": run.arguments.get("method"),
                 "seed": seed_of(run)}  # fmt: skip
        cells.append(_cell(Task(run.folder.as_posix(), "student", run.folder, {}, facts=facts), run))
    unranked = dict.fromkeys(("vs_kd", "vs_kd_p", "vs_best", "vs_best_p", "kd_weight"))
    unranked |= {"vs_kd_mark": "", "vs_best_mark": ""}
    rows = [{**row, **unranked, "details": details[row["label"]]} for row in whole(tabulated(cells, {}))]
    return Group("", "", Labels(), in_order(rows), kind="teachers")


def _network(run: FoundRun) -> str:
    return str(run.arguments.get("network") or "?")


def _architecture(run: FoundRun) -> str:
    return str((run.config.get("teacher") or {}).get("architecture") or "")


def _seen(run: FoundRun) -> Labels:
    """Which of the labels a student saw."""
    arguments = run.arguments
    training = arguments.get("training") or {}
    given = {name: arguments.get(name) or training.get(name) for name in SEEN}
    return Labels.read({name: value for name, value in given.items() if value is not None})


def _taught_by(run: FoundRun) -> str | None:
    """The weights of its teacher, or where that lay: folders are moved."""
    place, weights = (run.arguments.get("teacher") or {}).get("place"), (run.config.get("teacher") or {}).get("weights")
    return str(weights) if weights else _resolved(str(place)) if place else None


def _addresses(run: FoundRun) -> set[str]:
    """By what students may name it as their teacher."""
    weights = (run.result or {}).get("weights")
    return {_resolved(run.folder.as_posix()), *([str(weights)] if weights else [])}


@cache
def _resolved(place: str) -> str:
    """Asked for once: thousands of runs share a few teachers."""
    return Path(place).resolve().as_posix()


def _cell(task: Task, run: FoundRun) -> Cell:
    return replace(run.cell, task=task) if run.cell else Cell(task, "begun")
