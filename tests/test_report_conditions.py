"""Runs that no bench lists: only those that were trained alike are ranked, and names say where they differ, shortly."""

import json
from pathlib import Path
from typing import Any

import pytest

from sskd.report.conditions import conditions_of, described, differing
from sskd.report.export import as_csv, as_markdown
from sskd.report.found import find, read_run
from sskd.report.page import Page, as_html, gather
from tests.reports import STUDENT, TEACHER, config, records, write_grid, write_run


def page_of(*places: Path) -> Page:
    return gather(find([str(place) for place in places]), "", "now", "sskd report", "0")


def trained(top: Path, name: str, method: str, gain: float, seed: int = 0, **changed: Any) -> Path:
    """A student of the teacher in `top/teacher`; ce has no teacher.

    Arguments of its training are changed, or others: `options__temperature=...`, `arguments__fraction=...`.
    """
    teacher = top / "teacher"
    if not teacher.exists():
        write_run(teacher, config("ce", 0), records("ce", 0, 4, 9.0))
    epochs = changed.get("epochs", 4)
    own = config(method, seed, epochs, str(changed.pop("teacher", teacher)))
    for key, value in changed.items():
        where, _, last = key.rpartition("__")
        place = own["arguments"] if where == "arguments" else own["arguments"][where or "training"]
        place[last] = value
    if method == "ce":
        own |= {"arguments": own["arguments"] | {"teacher": None, "options": {}}, "teacher": {}}
    return write_run(top / name, own, records(method, seed, epochs, gain))


def test_unlike_epochs_are_not_ranked(tmp_path: Path) -> None:
    """A student trained alone for longer beats KD, which beats it at the same schedule."""
    trained(tmp_path, "ce", "ce", 0.0)
    trained(tmp_path, "kd", "kd", 5.0)
    trained(tmp_path, "ce-long", "ce", 9.0, epochs=40)
    page = page_of(tmp_path)
    groups = page.parts[0].section.groups
    assert [(group.kind, group.title) for group in groups] == [
        ("methods", f"{TEACHER} → {STUDENT}, 4 epochs"),
        ("apart", f"{TEACHER} → {STUDENT}, each under conditions of its own, not ranked"),
    ]
    assert [[row["label"] for row in group.rows] for group in groups] == [["teacher", "kd", "ce"], ["ce, 40 epochs"]]
    assert page.headline.startswith("Of the students with 4 epochs, kd is best, with ")
    assert len(page.answers) == 1 and "best: kd" in [fact.name for fact in page.answers[0].facts]
    assert "ce, 40 epochs" in as_markdown(page, {})
    assert as_html(page).count(" (best)</span>") == 1
    assert f"apart,{TEACHER},{STUDENT}" in as_csv(page)


def test_nothing_is_best_where_nothing_is_alike(tmp_path: Path) -> None:
    trained(tmp_path, "kd", "kd", 5.0)
    trained(tmp_path, "ce", "ce", 0.0, batch_size=128)
    page = page_of(tmp_path)
    assert page.headline == "No two methods were trained under the same conditions, so none is called the best."
    assert not page.answers and not page.ranking
    assert sorted(row["label"] for row in page.parts[0].section.groups[0].rows) == ["ce, batch 128", "kd, batch 64"]


def test_teachers_stand_apart_from_students(tmp_path: Path) -> None:
    """Trials of teachers neither lengthen the names of students nor are called best."""
    trained(tmp_path, "ce", "ce", 0.0)
    trained(tmp_path, "kd", "kd", 5.0)
    trial = config("ce", 0, 30)
    trial["arguments"]["training"] |= {"channels_last": True, "batch_size": 512, "milestones": list(range(20))}
    trial["arguments"]["training"]["optim"] = {"lr": 0.4, "schedule": "step", "nesterov": True}
    write_run(tmp_path / "trial", trial, records("ce", 0, 30, 20.0))
    page = page_of(tmp_path)
    students, teachers = page.parts[0].section.groups
    assert [row["label"] for row in students.rows] == ["teacher", "kd", "ce"] and students.conditions == ""
    assert (teachers.kind, teachers.title) == ("teachers", "Teachers")
    assert [row["label"] for row in teachers.rows] == [
        f"{TEACHER} (30 epochs, batch 512, lr 0.4, 3 more)",
        f"{TEACHER} (4 epochs, batch 64, lr 0.1, 3 more)",
    ]
    assert "milestones 0, 1, 2, 3, 4, 5," in (full := teachers.rows[0]["details"]) and "nesterov on" in full
    assert all(row["vs_best"] is None for row in teachers.rows)
    assert page.headline.startswith("kd is best") and [one.title for one in page.answers] == [students.title]
    text = as_html(page)
    assert 'title="' + teachers.rows[0]["details"] in text and "{&#34;" not in text.split('id="runs"')[0]


def test_teachers_alone(tmp_path: Path) -> None:
    for lr in (0.05, 0.1):
        trial = config("ce", 0)
        trial["arguments"]["training"]["optim"]["lr"] = lr
        write_run(tmp_path / "teachers" / f"lr{lr}", trial, records("ce", 0))
    page = page_of(tmp_path)
    (group,) = page.parts[0].section.groups
    assert [row["label"] for row in group.rows] == [f"{TEACHER} (lr 0.05)", f"{TEACHER} (lr 0.1)"]
    assert page.headline == "Teachers alone: no student has been trained yet." and not page.answers


def test_a_command_tells_trials_of_a_network_that_is_both(tmp_path: Path) -> None:
    """Teacher and student of one architecture: who was trained by `sskd teacher` is no student."""
    for name, command in (("trial", "sskd teacher --model"), ("alone", "sskd distill --student")):
        own = config("ce", 0)
        own["environment"]["command"] = command
        write_run(tmp_path / name, own, records("ce", 0))
    own = config("kd", 0, teacher=(tmp_path / "trial").as_posix())
    own["arguments"]["network"] = TEACHER
    write_run(tmp_path / "kd", own, records("kd", 0))
    (group,) = page_of(tmp_path).parts[0].section.groups
    assert sorted(row["label"] for row in group.rows) == ["ce", "kd", "teacher"]


def test_a_student_alone_is_compared_with_those_of_each_teacher(tmp_path: Path) -> None:
    write_run(tmp_path / "other" / "big", config("ce", 1), records("ce", 1, 4, 9.0))
    trained(tmp_path, "ce", "ce", 0.0)
    trained(tmp_path, "kd", "kd", 5.0)
    trained(tmp_path, "kd-by-other", "kd", 3.0, teacher=tmp_path / "other" / "big")
    page = page_of(tmp_path)
    groups = page.parts[0].section.groups
    assert {group.title for group in groups if group.kind == "methods"} == {
        f"{TEACHER} (big) → {STUDENT}",
        f"{TEACHER} (teacher) → {STUDENT}",
    }
    assert all([row["label"] for row in group.rows] == ["teacher", "kd", "ce"] for group in groups)
    labels = page.parts[0].section.labels
    assert {labels[tmp_path / name] for name in ("ce", "kd", "kd-by-other")} == {"ce", "kd, by teacher", "kd, by big"}


def test_options_are_compared_and_repetitions_are_counted_once(tmp_path: Path) -> None:
    for seed in (0, 1):
        trained(tmp_path, f"kd-{seed}", "kd", 5.0, seed)
        trained(tmp_path, f"kd-T8-{seed}", "kd", 3.0, seed, options__temperature=8.0)
    trained(tmp_path, "kd-0-again", "kd", 5.0)
    (group,) = page_of(tmp_path).parts[0].section.groups
    assert {row["label"]: (row["n"], row["of"]) for row in group.rows[1:]} == {
        "kd (temperature unset)": (2, 2),
        "kd (temperature unset, kd-0-again)": (1, 1),
        "kd (temperature 8)": (2, 2),
    }


def test_how_a_run_computed_is_no_condition_but_tells_equal_seeds_apart(tmp_path: Path) -> None:
    trained(tmp_path, "ce", "ce", 0.0, precision="fp32")
    trained(tmp_path, "a", "kd", 5.0, precision="fp32")
    (group,) = page_of(tmp_path).parts[0].section.groups
    assert [row["label"] for row in group.rows] == ["teacher", "kd", "ce"]
    trained(tmp_path, "b", "kd", 4.0, precision="bf16")
    (group,) = page_of(tmp_path).parts[0].section.groups
    assert sorted(row["label"] for row in group.rows[1:]) == ["ce", "kd (precision bf16)", "kd (precision fp32)"]


def test_what_a_run_did_counts_not_what_it_was_told(tmp_path: Path) -> None:
    """A rate that was chosen is the same as one that was given; a setting of a later release is as by default."""
    folders = [trained(tmp_path, "given", "kd", 5.0), trained(tmp_path, "chosen", "kd", 5.0, 1)]
    own = json.loads((folders[1] / "config.json").read_text())
    own["optim"], own["arguments"]["training"]["optim"]["lr"] = {"lr": 0.1}, None
    own["arguments"]["training"]["micro_batch"] = 0
    (folders[1] / "config.json").write_text(json.dumps(own))
    given, chosen = (conditions_of(read_run(folder)) for folder in folders)
    assert differing([given, chosen]) == [] and given["optim.lr"] == 0.1


def test_methods_are_ranked_over_the_tables_that_all_of_them_are_in(tmp_path: Path) -> None:
    """The student alone is first where nothing better was tried, which does not make it the best."""
    for name, gain in (("ce", 0.0), ("kd", 5.0), ("at", 3.0)):
        trained(tmp_path, name, name, gain)
    trained(tmp_path, "ce-long", "ce", 9.0, epochs=40)
    trained(tmp_path, "at-long", "at", 3.0, epochs=40)
    page = page_of(tmp_path)
    assert [(line["label"], line["pairs"]) for line in page.ranking] == [("at", 2), ("ce", 2)]
    (tmp_path / "at-long" / "result.json").unlink()
    page = page_of(tmp_path)
    assert not page.ranking and page.headline.startswith("So far, of the students with 4 epochs, kd is best")


def test_labels_are_short_and_full_texts_are_kept() -> None:
    values = {"epochs": 1, "optim.lr": 0.1, "optim.milestones": [1, 2, 3, 4, 5], "init": "a" * 60, "flag": False}
    (texts,) = described({"x": values}, list(values)).values()
    assert texts[0] == "1 epoch, lr 0.1, milestones 1, 2, 3 ..., 2 more"
    assert texts[1] == f"1 epoch, lr 0.1, milestones 1, 2, 3, 4, 5, init {'a' * 60}, flag off"
    assert described({"x": values}, ["init"])["x"][0] == f"init {'a' * 21}..."


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"d": [1, 2, 3, 4]}, {"d": [1, 2, 3, 5]}),
        ({"d": 0.05}, {"d": 0.050001}),
        ({"d": "a" * 40}, {"d": "a" * 41}),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, {"a": 1, "b": 1, "c": 1, "d": 2}),
        ({"train_fingerprint": "x", "d": 1}, {"train_fingerprint": "y", "d": 1}),
    ],
)
def test_what_differs_has_another_label(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Else runs that differ would be averaged as repetitions of each other."""
    short = [text for text, _ in described({0: one, 1: other, 2: dict.fromkeys(one, 7)}, list(one)).values()]
    assert len(set(short)) == 3


def test_a_difference_that_is_not_shown_keeps_seeds_apart(tmp_path: Path) -> None:
    trained(tmp_path, "ce", "ce", 0.0)
    for seed, last in ((0, 4), (1, 5)):
        trained(tmp_path, f"kd-{seed}", "kd", 5.0, seed, options__layers=[1, 2, 3, last])
    (group,) = page_of(tmp_path).parts[0].section.groups
    assert {row["label"]: row["n"] for row in group.rows[1:]} == {
        "ce": 1,
        "kd (layers 1, 2, 3, 4)": 1,
        "kd (layers 1, 2, 3, 5)": 1,
    }


def test_a_method_keeps_its_colour_on_the_page(tmp_path: Path) -> None:
    write_grid(tmp_path / "bench", seeds=2)
    trained(tmp_path / "more", "kd", "kd", 5.0, test_images=1)
    trained(tmp_path / "more", "zz", "zz", 5.0)
    colours: dict[str, set[int | None]] = {}
    for plot in page_of(tmp_path).plots:
        for one in (one for view in plot.views for one in view.series):
            for name, number in zip(one.names or [], one.colours or [], strict=False):
                colours.setdefault(name, set()).add(number)
            if one.method:
                colours.setdefault(one.method, set()).add(one.colour)
    assert colours.pop(f"teacher {TEACHER}") == {5}
    assert colours == {"ce": {0}, "kd": {1}, "at": {2}, "sskd": {3}, "zz": {4}}


@pytest.mark.parametrize(
    ("changed", "title", "short"),
    [
        ({"noise": 0.25}, "25 % symmetric label noise", "kd, 25 % noise"),
        ({"arguments__fraction": 0.25}, "25 % of the training images", "kd, 25 %"),
    ],
)
def test_what_students_see_is_said_once(tmp_path: Path, changed: dict[str, Any], title: str, short: str) -> None:
    for method in ("ce", "kd"):
        trained(tmp_path, f"all-{method}", method, 1.0)
        trained(tmp_path, f"few-{method}", method, 1.0, **changed)
    section = page_of(tmp_path).parts[0].section
    assert [group.title for group in section.groups] == [f"{TEACHER} → {STUDENT}", f"{TEACHER} → {STUDENT}, {title}"]
    assert section.labels[tmp_path / "few-kd"] == short
