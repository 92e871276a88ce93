"""Compares the package with what the published implementations computed: `python -m tests.golden DIR`.

DIR holds .npz files of the formats in the golden vectors' README. How each case is computed stands in
`tests.oracles.published`; a new method is one entry of `METHOD_CHECKS` in `tests.oracles.published_methods`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sskd.errors import UserError
from tests.oracles.published import FAMILIES
from tests.oracles.stored import METHOD_KEY, Array, Family, Golden, Malformed, Results, first_line

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Case:
    """One line of the report."""

    file: str
    name: str
    error: float  # the worst of its arrays
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem and self.error <= TOLERANCE

    def __str__(self) -> str:
        result = f"{self.error:9.2e}  {'ok' if self.ok else 'FAIL'}"
        return f"{self.file:28} {self.name:16} {result}{f'  {self.problem}' if self.problem else ''}"


def difference(key: str, ours: Tensor | tuple[int, ...], stored: Array) -> float:
    """max|ours - stored| / max|stored|; for shapes and for what selection kept, 0 or infinity."""
    value: Array = ours.detach().numpy() if isinstance(ours, Tensor) else np.array(ours)
    if key.endswith(".shape") or ".kept_" in key:
        return 0.0 if np.array_equal(value, stored) else np.inf
    if value.shape != stored.shape and not value.size == stored.size == 1:
        return np.inf
    worst, scale = np.abs(value - stored).max(initial=0.0), np.abs(stored).max(initial=0.0)
    error = worst / scale if scale else worst
    return float(error) if np.isfinite(error) else np.inf


def compare(path: Path, golden: Golden, name: str, compute: Callable[[], Results]) -> Case:
    """Compute one case and compare what the file holds of it."""
    nothing = Case(path.name, name, np.inf)
    try:
        results = {key: value for key, value in compute().items() if key in golden.arrays}
        if not results:
            return replace(nothing, problem="the file holds no result of it")
        errors = {key: difference(key, value, golden.array(key)) for key, value in results.items()}
    except Malformed as error:
        return replace(nothing, problem=str(error))
    except (UserError, RuntimeError, ValueError, LookupError, TypeError) as error:
        return replace(nothing, problem=f"cannot be computed: {first_line(error)}")
    worst = max(errors, key=errors.__getitem__)
    return Case(path.name, name, errors[worst], "" if errors[worst] <= TOLERANCE else f"worst: {worst}")


def unchecked(golden: Golden) -> list[str]:
    """The names under which something was stored that nobody looked at; where a part was, the whole keys."""
    rest: dict[str, list[str]] = {}
    for key in golden.arrays:
        match = METHOD_KEY.match(key)
        rest.setdefault(match[1] if match else key.split(".")[0], []).append(key)
    rest.pop("in", None)  # inputs shared by a file's methods
    listed: list[str] = []
    for name, keys in rest.items():
        unused = [key for key in keys if key not in golden.used]
        listed += [name] if unused == keys else unused
    return listed


def check_file(path: Path, family: Family) -> list[Case]:
    """Check one file and print a line for each case; a file without any is itself a failed case."""
    cases: list[Case] = []
    try:
        golden = Golden(path)
        for name, compute in family(golden):
            cases.append(compare(path, golden, name, compute))
            print(cases[-1], flush=True)
        if left := unchecked(golden):
            print(f"{path.name:28} not checked: {', '.join(left)}")
        if cases:
            return cases
        problem = "holds nothing that can be checked"
    except Malformed as error:
        problem = str(error)
    cases.append(Case(path.name, "-", np.inf, problem))
    print(cases[-1], flush=True)
    return cases


def check(directory: Path) -> list[Case]:
    """Check every file of a known format in a directory."""
    cases: list[Case] = []
    for path in sorted(directory.glob("*.npz")):
        family = next((family for prefix, family in FAMILIES.items() if path.name.startswith(prefix)), None)
        if family is None:
            print(f"{path.name:28} not checked: its name begins with none of {', '.join(FAMILIES)}")
        else:
            cases += check_file(path, family)
    return cases


def main(arguments: list[str]) -> int:
    """Return 0 where all is well, 1 where a case fails or there is none, 2 for wrong usage."""
    if len(arguments) != 1:
        print("usage: python -m tests.golden DIR", file=sys.stderr)
        return 2
    cases = check(Path(arguments[0]))
    if not cases:
        print(f"{arguments[0]} holds no file named {', '.join(f'{prefix}*.npz' for prefix in FAMILIES)}")
        return 1
    failed = sum(not case.ok for case in cases)
    worst = max(case.error for case in cases)
    print(f"{len(cases)} cases, {failed} failed, worst error {worst:.2e}")
    return 1 if failed else 0


if __name__ == "__main__":
    torch.set_num_threads(1)  # small tensors: on a busy machine two threads took ten times as long
    sys.exit(main(sys.argv[1:]))
