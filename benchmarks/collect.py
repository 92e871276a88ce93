"""Gathers finished run directories into one JSON of results: `python -m benchmarks.collect RUN... --out FILE`."""

import argparse
import json
from pathlib import Path
from typing import Any

from sskd.errors import UserError
from sskd.runs import Run


def cell(path: Path) -> dict[str, Any]:
    """One run's result, with what it takes to repeat it. Where the data lay and the run ran is left out.

    Raises:
        UserError: the run is not finished.
    """
    run = Run(path)
    config, result = run.config(), run.result()
    if config is None or result is None:
        raise UserError(f"{path} is not a finished run; repeat its command first.")
    arguments = {name: value for name, value in config["arguments"].items() if name not in ("data", "teacher")}
    machine = {name: value for name, value in config["environment"].items() if name != "command"}
    curve = [
        {"stage": record["stage"], "epoch": record["epoch"], **record["test"]}
        for record in run.records()
        if "test" in record
    ]
    return {
        "run": path.name,
        "result": result,
        "arguments": arguments,
        "data": config["data"],
        "teacher": {name: value for name, value in config["teacher"].items() if name != "normalisation_from"},
        "execution": config["execution"],
        "environment": machine,
        "test_curve": curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="finished run directories")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--command", required=True, help="how the runs are repeated: a recipe's path or a command")
    parser.add_argument("--note", default="", help="what a reader must know of the conditions")
    given = parser.parse_args()
    cells = [cell(path) for path in given.runs]
    given.out.write_text(json.dumps({"command": given.command, "note": given.note, "runs": cells}, indent=1) + "\n")
    for one in cells:
        print(f"{one['run']:20} top-1 {one['result']['last']['test']['top1']:.2%}  {one['result']['seconds']:.0f} s")


if __name__ == "__main__":
    main()
