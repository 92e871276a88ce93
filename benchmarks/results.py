"""What all benchmarks share: results as JSON that can be gone on with, medians with their spread, fitted powers."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sskd.environment import environment
from sskd.files import write_atomic

RESULTS = Path(__file__).parents[1] / "results"


class Results:
    """One JSON file of parts. A part that is there is not measured again, so a benchmark can be stopped at any time.

    Raises:
        SystemExit: the file holds measurements made with other settings, on another GPU, or with another torch or
            malloc: one heading is for all parts.
    """

    def __init__(self, path: Path, benchmark: str, settings: dict[str, Any]) -> None:
        self.path = path
        settings = json.loads(json.dumps(settings))
        command = " ".join([f"python -m benchmarks.{benchmark}", *_spelled(settings)])
        here = environment()
        if here["allocator"]:
            command = f"LD_PRELOAD={here['allocator']} {command}"
        self.values = {"benchmark": benchmark, **here, "command": command, "settings": settings, "parts": {}}
        self.values["commits"] = {}  # of each part: a file can be gone on with after the code has changed
        self.commit = (here["git"] or {}).get("commit", "unknown")
        if path.exists():
            there = json.loads(path.read_text())
            if there.get("settings") != settings:
                sys.exit(f"{path} was measured with other settings ({there.get('command')}); say --out another file.")
            for name in ("accelerator", "torch", "allocator"):
                if there.get(name) != self.values[name]:
                    sys.exit(f"{path} was measured with {there.get(name)}; here is {self.values[name]}: another --out.")
            before = (there.get("git") or {}).get("commit", "unknown")
            self.values |= {
                "parts": there["parts"],
                "commits": there.get("commits") or dict.fromkeys(there["parts"], before),
            }

    def __contains__(self, part: str) -> bool:
        return part in self.values["parts"]

    @property
    def parts(self) -> dict[str, Any]:
        """What is there, by name."""
        parts: dict[str, Any] = self.values["parts"]
        return parts

    def keep(self, part: str, values: Any) -> None:
        """Write a part, at once."""
        self.parts[part] = values
        self.values["commits"][part] = self.commit
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, (json.dumps(self.values, indent=1) + "\n").encode())


def _spelled(settings: dict[str, Any]) -> list[str]:
    """Settings as they are typed."""
    typed = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return [f"--{name} {shlex.quote(value)}" for name, value in typed.items()]


def quartiles(values: Sequence[float]) -> list[float]:
    """First quartile, median, third quartile."""
    return [float(value) for value in np.percentile(values, (25, 50, 75))]


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """p of the power law cost = c size^p that fits best: the slope of the logarithms' line."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
