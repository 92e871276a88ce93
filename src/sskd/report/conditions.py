"""What trainings must share before they are ranked against each other, and short names for where they differ."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from sskd.files import flat
from sskd.reading import Reading
from sskd.report.found import FoundRun, Values
from sskd.settings import Training

# How a run computes, which is not what it computes. Everything else of a training is a condition, so that a setting
# that is added one day keeps unlike runs apart until somebody decides otherwise.
EXECUTION = (
    *("device", "precision", "channels_last", "compiled", "captured", "recompute", "threads", "workers"),
    *("evaluate_every", "checkpoint_every", "tensorboard"),
)
SEEN = ("fraction", "per_class", "noise", "noise_kind")  # said by the labels of a table's title
_FOLLOWS = ("train_images", "train_fingerprint")  # from other settings: said only where nothing else differs
_TEACHING = ("teacher_data", "teacher_labels")
Key = TypeVar("Key")
SHOWN = 3  # differences that a label says
ITEMS = 3  # of a list
LETTERS = 24  # of a text
_USUAL: dict[str, Any] = {
    **json.loads(json.dumps(flat(asdict(Training())))),
    **{f"reading.{name}": value for name, value in json.loads(json.dumps(flat(asdict(Reading())))).items()},
}


def conditions_of(run: FoundRun) -> dict[str, Any]:
    """What a run was trained on and how, by flat names, but for its method, its teacher and its seed.

    What a run did counts, where it says so: the learning rate that it chose, not that none was given.
    """
    arguments, data = run.arguments, run.data
    training = {**(arguments.get("training") or {})}
    training["optim"] = {**(training.get("optim") or {}), **(run.config.get("optim") or {})}
    given: dict[str, Any] = {
        **{name: arguments[name] for name in ("fraction", *_TEACHING) if arguments.get(name) is not None},
        **{name: value for name, value in training.items() if name not in ("seed", *EXECUTION)},
        **{name: data[name] for name in ("crops", "decode", *_FOLLOWS) if data.get(name) is not None},
        "reading": arguments.get("reading") or {},
        "init": (arguments.get("init") or {}).get("place"),
    }
    usual = {name: value for name, value in _USUAL.items() if name not in ("seed", *EXECUTION)}
    return usual | {name: value for name, value in flat(given).items() if not (isinstance(value, dict) and not value)}


def without_teaching(conditions: Values) -> dict[str, Any]:
    """The conditions that a student without a teacher has, too."""
    return {name: value for name, value in conditions.items() if name not in _TEACHING}


def options_of(run: FoundRun) -> dict[str, Any]:
    """What belongs to the method: its options and the taps it reads, by flat names."""
    arguments = run.arguments
    taps = {name: arguments.get(name) or {} for name in ("student_taps", "teacher_taps")}
    found = flat({**(arguments.get("options") or {}), **taps})
    return {name: value for name, value in found.items() if value != {}}


def execution_of(run: FoundRun) -> dict[str, Any]:
    """How a run computed, as it was asked to."""
    training = run.arguments.get("training") or {}
    return {name: training.get(name) for name in EXECUTION}


def key_of(values: Values) -> str:
    """The same text for the same values."""
    return json.dumps(values, sort_keys=True)


def differing(values: Iterable[Values]) -> list[str]:
    """The names whose values are not the same in all, those that are most looked for first."""
    every = list(values)
    names = dict.fromkeys(name for one in every for name in one)
    found = [name for name in names if len({key_of({"": one.get(name)}) for one in every}) > 1]
    first = ("epochs", "batch_size", "optim.lr", "optim.schedule")
    return sorted(found, key=lambda name: (first.index(name) if name in first else len(first), name))


def described(values: Mapping[Key, Values], names: Sequence[str]) -> dict[Key, tuple[str, str]]:
    """Each one's values of these names, short and in full: `2 epochs, lr 0.1, milestones 1, 2, 3 ..., 2 more`.

    What differs in any of the names differs in the short text, too: where cutting would hide it, nothing is cut.
    """
    telling = [name for name in names if name not in _FOLLOWS] or names
    found, meant = dict[Key, tuple[str, str]](), dict[str, set[str]]()
    for key, one in values.items():
        found[key] = _short(one, telling), _full(one, telling)
        meant.setdefault(found[key][0], set()).add(key_of({name: one.get(name) for name in names}))
    for key, one in values.items():
        if len(meant[found[key][0]]) > 1:
            found[key] = (_full(one, names),) * 2
    return found


def _full(values: Values, names: Sequence[str]) -> str:
    return ", ".join(_phrase(name, values.get(name), cut=False) for name in names)


def _short(values: Values, names: Sequence[str]) -> str:
    shown = [_phrase(name, values.get(name), cut=True) for name in names[:SHOWN]]
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*shown, *more])


def _phrase(name: str, value: Any, cut: bool) -> str:
    text = _text(value, cut)
    if name == "epochs":
        return f"{text} epoch{'' if value == 1 else 's'}"
    if name == "train_images":
        return f"{text} training images"
    known = {"batch_size": "batch", "train_fingerprint": "training images"}
    return f"{known.get(name, name.removeprefix('optim.').replace('.', ' '))} {text}"


def _text(value: Any, cut: bool) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.4g}" if cut else f"{value!r}".removesuffix(".0")
    if isinstance(value, list | tuple):
        items = [_text(one, cut) for one in (value[:ITEMS] if cut else value)]
        return ", ".join(items) + (" ..." if cut and len(value) > ITEMS else "")
    text = value if isinstance(value, str) else json.dumps(value)
    return text if not cut or len(text) <= LETTERS else text[: LETTERS - 3] + "..."


def varying_options(groups: Iterable[Sequence[FoundRun]]) -> dict[str, list[str]]:
    """By method, the options in which its runs differ under the same conditions.

    An option that goes along with the conditions, such as a head's epochs with the student's, is not among them.
    """
    found: dict[str, dict[str, None]] = {}
    for runs in groups:
        methods: dict[str, list[FoundRun]] = {}
        for run in runs:
            methods.setdefault(method_of(run), []).append(run)
        for method, members in methods.items():
            found.setdefault(method, {}).update(dict.fromkeys(differing(map(options_of, members))))
    return {method: list(names) for method, names in found.items()}


def method_of(run: FoundRun) -> str:
    """The method's name."""
    return str(run.arguments.get("method"))


def seed_of(run: FoundRun) -> Any:
    """The seed of the student's first weights and of all that is drawn in its training."""
    return (run.arguments.get("training") or {}).get("seed", 0)


def named_apart(runs: Sequence[FoundRun], labels: Mapping[str, str]) -> dict[str, str]:
    """Labels by folder in which no two runs share label and seed.

    Such runs are told apart by how they computed, else all but the first by their folders' names: they are no
    repetitions.
    """
    found = dict(labels)
    for label, members in _by_label(runs, found).items():
        if len(set(map(seed_of, members))) < len(members):
            settings = {str(run.folder): execution_of(run) for run in members}
            if names := differing(settings.values()):
                texts = described(settings, names)
                found |= {folder: _with(label, short) for folder, (short, _) in texts.items()}
    for label, members in _by_label(runs, found).items():
        seen, ends = set[Any](), last_parts([run.folder for run in members])
        for run, end in zip(members, ends, strict=True):
            if seed_of(run) in seen:
                found[str(run.folder)] = _with(label, end)
            seen.add(seed_of(run))
    return found


def _by_label(runs: Sequence[FoundRun], labels: Mapping[str, str]) -> dict[str, list[FoundRun]]:
    found: dict[str, list[FoundRun]] = {}
    for run in runs:
        found.setdefault(labels[str(run.folder)], []).append(run)
    return found


def _with(label: str, more: str) -> str:
    return f"{label[:-1]}, {more})" if label.endswith(")") else f"{label} ({more})"


def last_parts(places: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    names = list[str]()
    for count in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-count:]) for place in places]
        if len(set(names)) == len(names):
            break
    return names
