"""`sskd COMMAND`: the functions of the package, with their arguments as options, YAML configs and `--print_config`."""

import difflib
import json
import re
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NoReturn

import jsonargparse

from sskd import __version__
from sskd.cli.ending import ended, output_failed, stopped
from sskd.errors import UserError
from sskd.escaping import visible
from sskd.stopping import STATUS, Terminated, handling_sigterm
from sskd.terminal import Terminal

ABOUT = (
    "Small image classifiers from big ones. Any command takes --debug, to show where in the code an error arose; "
    "sskd --version says which version this is."
)
COMMANDS: dict[str, Any] = {  # as module:function, since most of them need torch, and `report` does not
    "demo": "sskd.cli.demo:demo",
    "teacher": "sskd.api:train_teacher",
    "distill": "sskd.api:distill",
    "check": "sskd.cli.check:check",
    "evaluate": "sskd.api:evaluate",
    "predict": "sskd.cli.predict:predict",
    "export": "sskd.export.onnx:export",
    "bench": "sskd.bench.run:bench",
    "probe": "sskd.cli.analyses:show_probe",
    "similarity": "sskd.cli.analyses:show_similarity",
    "inspect": "sskd.cli.analyses:show_inspection",
    "study": {
        "_help": "Vary one thing on a bench recipe, over methods and seeds: few or wrong labels, or a part of SSKD.",
        "few-labels": "sskd.studies.data:few_labels",
        "noisy-labels": "sskd.studies.data:noisy_labels",
        "loss-terms": "sskd.studies.options:loss_terms",
        "transfer-ratio": "sskd.studies.options:transfer_ratio",
        "presets": "sskd.studies.options:presets",
        "pretexts": "sskd.studies.options:pretexts",
        "transformations": "sskd.studies.options:transformations",
    },
    "report": "sskd.report.run:report",
    "data": {"_help": "Look at a data set before any time is spent on it.", "check": "sskd.cli.data:check_data"},
    "list": {
        "_help": "List the networks, methods, data sets or bench recipes that the other commands take.",
        "models": "sskd.cli.listing:list_models",
        "methods": "sskd.cli.listing:list_methods",
        "data": "sskd.cli.listing:list_data",
        "recipes": "sskd.cli.listing:list_recipes",
    },
}


def _loaded(commands: Mapping[str, Any]) -> dict[str, Any]:
    """The functions that the names stand for."""

    def load(command: str) -> Any:
        module, _, name = command.partition(":")
        return getattr(import_module(module), name)

    return {
        name: command if name == "_help" else load(command) if isinstance(command, str) else _loaded(command)
        for name, command in commands.items()
    }


class Parser(jsonargparse.ArgumentParser):  # type: ignore[misc]
    """Says what is wrong with the arguments in one line, like all other errors, with the nearest known option."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse, and refuse a config that is no text."""
        try:
            return super().parse_args(*args, **kwargs)
        except UnicodeDecodeError as error:
            self.error(f"the config file is not text ({error.reason} at byte {error.start})", error)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UserError`."""
        parser = getattr(ex, "subcommand_parser", None) or self
        text = " ".join(message.split())
        named = re.match(r'(?:the following arguments are required: |expected ")([\w.]+)', text)
        inner = named[1].split(".")[:-1] if named else []  # the command, where this parser is of all commands
        if text.startswith("the following arguments are required"):
            said, _, names = text.partition(": ")  # named COMMAND.OPTION, or COMMAND.SUBCOMMAND.OPTION
            text = f"{said}: {', '.join('--' + name.rpartition('.')[2] for name in names.split(', '))}"
        if text.startswith('expected "subcommand" to be one of'):  # the parser names the first few
            text = f"say which command: {', '.join(COMMANDS)}"
        if unknown := re.match(r"unrecognized arguments: (--[^\s=]+)", text):
            known = re.findall(r"--[\w.]+", parser.format_usage())
            near = difflib.get_close_matches(unknown[1], known, cutoff=0.75)
            text += f". Did you mean {' or '.join(near)}?" if near else ""
        command = " ".join([parser.prog.replace(" [options]", ""), *inner])
        raise UserError(f"{text.rstrip('.?')}{'?' if text.endswith('?') else '.'} See {command} --help.") from ex


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Exits with 0, with 2 for what the user can put right, with 1 for anything else."""
    words = [_spelled(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    if words == ["--version"]:
        print(f"sskd {__version__}")
        return ended(0)
    command = words[0] if words else ""
    try:
        with handling_sigterm():
            return ended(_run(words))
    except KeyboardInterrupt:
        print(stopped(command, "interrupted"), file=sys.stderr)
        return ended(130)
    except Terminated:
        print(stopped(command, "ended by SIGTERM"), file=sys.stderr)
        return ended(STATUS)
    except SystemExit as error:  # after --help
        sys.exit(ended(error.code if isinstance(error.code, int) else int(error.code is not None)))


def _run(words: list[str]) -> int:
    debug = "--debug" in words
    words = _with_place(_with_list([word for word in words if word != "--debug"]))
    try:
        result = jsonargparse.auto_cli(
            _loaded(COMMANDS if words[:1] != ["report"] else {"report": COMMANDS["report"]}),
            args=words,
            as_positional=False,
            parser_class=Parser,
            prog="sskd",
            description=ABOUT,
        )
        if isinstance(result, dict):
            from sskd.train.distributed import launched

            if launched().rank == 0:
                _show(result)
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"sskd: {_line(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        if isinstance(error, OSError) and output_failed(error):
            return ended(0, error)
        if debug:
            raise
        name = type(error).__name__
        print(f"sskd: unexpected {name}: {_line(error)}. Repeat with --debug to see where.", file=sys.stderr)
        return 1
    return 0


def _line(error: Exception) -> str:
    """What an error says, in one line that obeys no control character: some quote messages of several lines."""
    return visible(" ".join(str(error).splitlines()))


PLACES = {"export": "network", "bench": "recipe", "probe": "network", "similarity": "run", "inspect": "run"}
"""Of commands whose first word may be the value of this option: the parser takes options alone."""


def _with_place(words: list[str]) -> list[str]:
    """`bench RECIPE`, `inspect RUN` with what follows the command as an option."""
    if len(words) > 1 and words[0] in PLACES and not words[1].startswith("-"):
        return [words[0], f"--{PLACES[words[0]]}={words[1]}", *words[2:]]
    return words


LISTS = {"predict": "--images", "report": "--paths"}  # options whose name may be left out
FLAGS = {"report": ("--live",)}  # options that are true when nothing follows them


def _with_list(words: list[str]) -> list[str]:
    """`predict --run RUN A.jpg B/` with its images as an option, `report A B` with its paths."""
    name = LISTS.get(words[0]) if words else None
    if name is None:
        return words
    rest, listed, option = words[:1], list[str](), ""
    for word in words[1:]:
        if word.startswith("--"):
            flag = word in FLAGS.get(words[0], ())
            option = "" if "=" in word or word == "--help" or flag else word
            rest += [] if word == name else [f"{word}=true" if flag else word]
        elif option not in ("", name):
            rest.append(word)
            option = ""
        else:
            listed.append(word)
    return [*rest, f"{name}={json.dumps(listed)}"] if listed else rest


def _spelled(word: str) -> str:
    """--batch-size as well as --batch_size."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _show(result: dict[str, Any]) -> None:
    """A result, one fact a line; its records as the accuracies on each split."""
    console = Terminal()
    for key, value in result.items():
        if isinstance(value, dict):
            splits = {name: value[name] for name in ("validation", "test") if name in value}
            shares = ", ".join(f"{name} top-1 {split['top1']:.2%}" for name, split in splits.items())
            value = f"epoch {value['epoch']}: {shares}"
        elif isinstance(value, float) and key in ("top1", "top5"):
            value = f"{value:.2%}"
        elif isinstance(value, list):
            value = _listed(value)
        elif isinstance(value, int) and key != "seed":
            value = f"{value:,}"
        if value not in (None, ""):
            console.print(f"{key.replace('_', ' '):>20}  {value}", highlight=False, soft_wrap=True, markup=False)


def _listed(values: list[Any]) -> str:
    shown = [f"{value:.4g}" if isinstance(value, float) else visible(str(value)) for value in values[:10]]
    return ", ".join(shown) + (f", ... ({len(values):,} in all)" if len(values) > len(shown) else "")
