"""The command that repeats a run, from its config alone."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sskd.files import flat
from sskd.reading import Reading
from sskd.settings import Training

_USUAL = {"fraction": 1.0, "teacher_data": "full", "teacher_labels": "clean", "method": "sskd"}


def command_of(arguments: Mapping[str, Any], out: str) -> str:
    """`sskd distill ...` or `sskd teacher ...` with all that differs from the defaults, and all options of the method.

    `arguments` are those of a run's config; `out` is the folder to write to.
    """
    teacher, init = arguments.get("teacher") or {}, arguments.get("init") or {}
    alone = not teacher and arguments.get("method") == "ce"
    words = ["sskd", "teacher", "--model"] if alone else ["sskd", "distill", "--student"]
    words += [str(arguments.get("network")), "--data", str(arguments.get("data"))]
    if teacher:
        words += ["--teacher", str(teacher.get("place"))]
        for name in ("architecture", "mean", "std", "size", "weights"):
            if teacher.get(name) is not None:
                words += [f"--teacher_{name}", _word(teacher[name])]
    if init:
        words += ["--init" if alone else "--student_init", str(init.get("place"))]
        if init.get("weights") is not None:
            words += ["--init_weights" if alone else "--student_init_weights", str(init["weights"])]
    own = ("network", "data", "teacher", "init", "training", "reading", "options", "student_taps", "teacher_taps")
    for name, value in arguments.items():
        if name not in own and value != _USUAL.get(name) and not (alone and name == "method"):
            words += [f"--{name}", _word(value)]
    words += _differing(arguments.get("training") or {}, flat(asdict(Training())), "")
    words += _differing(arguments.get("reading") or {}, flat(asdict(Reading())), "reading.")
    for name, value in (arguments.get("options") or {}).items():
        words += [f"--options.{name}", _word(value)]
    for name in ("student_taps", "teacher_taps"):
        words += [f"--{name}", _word(arguments[name])] if arguments.get(name) else []
    return shlex.join([*words, "--out", out])


def _differing(given: Mapping[str, Any], usual: Mapping[str, Any], prefix: str) -> list[str]:
    words = []
    for name, value in flat(dict(given)).items():
        if name not in usual or value != json.loads(json.dumps(usual[name])):
            words += [f"--{prefix}{name}", _word(value)]
    return words


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
