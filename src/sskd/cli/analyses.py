"""`sskd probe`, `sskd similarity`, `sskd inspect`: analyses of finished runs as tables."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sskd.analyses.inspection import inspect
from sskd.analyses.probe import PIXELS, probe
from sskd.analyses.similarity import similarity
from sskd.ranges import refuse_empty
from sskd.terminal import Table, Terminal

Show = Callable[[Mapping[str, Any], Terminal], None]
EPOCHS = 8  # rows of a table by epochs at most


def _command(analyse: Callable[..., dict[str, Any]], show: Show) -> Callable[..., None]:
    """The analysis as a command of the same arguments, which prints instead of returning."""

    @functools.wraps(analyse)
    def run(*words: Any, **arguments: Any) -> None:
        refuse_empty(**arguments)
        console = Terminal()
        found = analyse(*words, **arguments)
        for note in found["notes"]:
            console.print(note, highlight=False, soft_wrap=True, markup=False)
        show(found, console)

    return run


def _show_similarity(found: Mapping[str, Any], console: Terminal) -> None:
    said, stages = found["predictions"], found["stages"]
    console.print(
        f"{_about(found)}: predictions agree on {said['agreement']:.2%}, KL of the student's from the teacher's "
        f"{said['kl']:.4f} nats at temperature {said['kl_temperature']:g}.",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("student, teacher:", *stages["teacher"], title="CKA of features (unbiased, minibatches)")
    for name, row in zip(stages["student"], found["cka"], strict=True):
        table.add_row(name, *("-" if value is None else f"{value:.3f}" for value in row))
    console.print(table)
    table = Table("", "L2 distance", "of the teacher's length", title="Features at the same place")
    for name, value in found["l2"].items():
        shown = ("another shape", "-") if value is None else (f"{value:.3f}", f"{found['l2_relative'][name]:.2f}")
        table.add_row(name, *shown)
    console.print(table)
    if found["ss"] is None:
        console.print("No self-supervised similarity: the method has no contrastive head.")
    else:
        _show_matrices(found["ss"], console)
    _kept(found, "similarity", console)


def _show_matrices(ss: Mapping[str, Any], console: Terminal) -> None:
    """Each side's similarities of the first transformed views; all are in the file."""
    numbered = [f"{i} {name}" for i, name in enumerate(ss["classes"])]
    for side in ("student", "teacher"):
        table = Table("view of", *numbered, title=f"Cosine of the {side}'s head with plain images")
        for row, values in zip(ss["rows"], ss[side], strict=True):
            if row["view"] == 1:
                table.add_row(numbered[row["image"]], *(f"{value:.2f}" for value in values))
        console.print(table)


def _show_inspection(found: Mapping[str, Any], console: Terminal) -> None:
    sides = [side for side in ("teacher", "student") if found[side]]
    table = Table("", *sides, title=_about(found))
    prefixes = ["" if side == "student" else f"{side}_" for side in sides]
    table.add_row("top-1", *(f"{found[f'{prefix}top1']:.2%}" for prefix in prefixes))
    table.add_row("precision", *(found[f"{prefix}precision"] for prefix in prefixes))
    table.add_row("expected calibration error", *(f"{found[f'{prefix}calibration']['ece']:.2%}" for prefix in prefixes))
    for title, worst in (("best class", False), ("worst class", True)):
        table.add_row(title, *(_extreme(found[f"{prefix}per_class"], worst) for prefix in prefixes))
    console.print(table)
    titles = {"ss": "head, of views", "tf": "teacher, of views", "plain": "teacher, of images"}
    for name, title in titles.items():
        if levels := found["error_levels"].get(name):
            console.print(_levels(title, levels))
        if kept := found["kept"].get(name):
            said = f"{kept['kept']:.1%} of {kept['rows']:,} rows are transferred (ratio {kept['ratio']:g})."
            console.print(said, highlight=False)
    if found["kept_by_epoch"]:
        console.print(_by_epoch(found["kept_by_epoch"]))
    if found["noisy"]:
        table = Table("rank", "view of", "taken for", "cosine", "with its own", "kept", title="What the head mistakes")
        for one in found["noisy"]:
            places = (f"{one[f'{key}_class']} ({Path(one[key]).name})" for key in ("image", "taken_for"))
            cosines = (f"{one[key]:.3f}" for key in ("similarity", "own_similarity"))
            table.add_row(str(one["rank"]), *places, *cosines, "yes" if one["kept"] else "no")
        console.print(table)
    _kept(found, "inspect", console)


def _show_probe(found: Mapping[str, Any], console: Terminal) -> None:
    said, linear, knn = found["protocol"], found["linear"], found["knn"]
    place = f"{found['architecture']}, {'teacher of ' if found['side'] == 'teacher' else ''}{found['network']}"
    place = "The images themselves" if found["network"] == PIXELS else f"Frozen features of {place}"
    console.print(f"{place}, on {found['data']}:", highlight=False, soft_wrap=True, markup=False)
    table = Table("classifier", "validation top-1", "test top-1")
    table.add_row(f"linear, penalty {linear['regularisation']:g}", *_shares(linear))
    table.add_row(f"{knn['k']} nearest", *_shares(knn))
    console.print(table)
    console.print(
        f"{found['classes']} classes; the most frequent makes {found['most_frequent_class']:.1%} of the test images. "
        f"{said['dimensions']} features of {said['training_images']:,} training images, {said['validation_images']:,} "
        f"of them to choose penalty and neighbours on, and {said['test_images']:,} test images; seed {said['seed']}.",
        highlight=False,
        soft_wrap=True,
    )
    if "kept" in found:
        console.print(f"Kept in {found['kept']}.", highlight=False, soft_wrap=True, markup=False)


def _shares(result: Mapping[str, Any]) -> tuple[str, str]:
    return f"{result['validation_top1']:.2%}", f"{result['top1']:.2%}"


def _levels(title: str, levels: Mapping[str, Any]) -> Table:
    table = Table("error level", "rows", "share", title=f"Error levels\n{title}")
    total = max(sum(levels["counts"]), 1)
    for first, end, count in zip(levels["edges"], levels["edges"][1:], levels["counts"], strict=False):
        name = str(first) if end - first == 1 else f"{first}-{end - 1}"
        table.add_row(name, f"{count:,}", f"{count / total:.1%}")
    return table


def _by_epoch(epochs: list[dict[str, float]]) -> Table:
    """A few epochs, evenly spread from the first to the last; all are in the file."""
    titles = {"ss_kept": "ss rows", "tf_kept": "tf rows", "ss_accuracy": "student's head right"}
    there = [name for name in titles if name in epochs[0]]
    table = Table("epoch", *(titles[name] for name in there), title="Transferred in training")
    count = min(EPOCHS, len(epochs))
    for i in sorted({round(k * (len(epochs) - 1) / max(count - 1, 1)) for k in range(count)}):
        table.add_row(f"{epochs[i]['epoch']:g}", *(f"{epochs[i][name]:.1%}" for name in there))
    return table


def _extreme(classes: list[dict[str, Any]], worst: bool) -> str:
    there = [one for one in classes if one["images"]]
    one = (min if worst else max)(there, key=lambda one: one["top1"])
    return f"{one['class']} {one['top1']:.0%} of {one['images']}"


def _about(found: Mapping[str, Any]) -> str:
    return f"{found['student']} ({found['method']}) on {found['images']:,} {found['split']} images of {found['data']}"


def _kept(found: Mapping[str, Any], name: str, console: Terminal) -> None:
    folder = Path(found["run"]) / "analyses"
    console.print(f"Kept in {folder}/{name}.json.", highlight=False, soft_wrap=True, markup=False)


show_similarity = _command(similarity, _show_similarity)
show_inspection = _command(inspect, _show_inspection)
show_probe = _command(probe, _show_probe)
