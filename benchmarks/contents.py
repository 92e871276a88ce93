"""How long it takes to find out what lies in tar shards: anew, and from what is kept of it on the disk.

`python -m benchmarks.contents --help`. A run does it once before it starts; each worker gets the result.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from benchmarks.lines import markdown
from benchmarks.photographs import write_shards
from benchmarks.results import RESULTS, Results, quartiles
from benchmarks.tables import contents_table
from sskd.data import load_source


def main(
    images: int = 120_000,
    each: int = 1000,
    classes: int = 100,
    distinct: int = 500,
    rounds: int = 3,
    out: Path = RESULTS / "contents-cpu.json",
) -> dict[str, Any]:
    """Generate photographs in shards, let a data set be found there, and write how long it took as JSON.

    With the tables of contents the headers of some images are read, of all up to 100,000. What was just written comes
    from the system's cache of files, as far as it holds: a disk comes on top.

    Args:
        images: how many training photographs, of some 85 KB; a twentieth as many are there to test with.
        each: photographs in a shard.
        classes: number of classes.
        distinct: photographs that are generated, a multiple of the classes; then they come again.
        rounds: medians and quartiles are over these.
        out: the JSON file.
    """
    settings = {"images": images, "each": each, "classes": classes, "distinct": distinct, "rounds": rounds}
    results = Results(out, "contents", settings)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        shards = write_shards(Path(folder) / "shards", images, images // 20, classes, each, distinct)
        size = sum(tar.stat().st_size for tar in shards.glob("*.tar"))
        found: dict[str, list[float]] = {"anew": [], "as kept": []}
        for i in range(rounds):
            os.environ["SSKD_CACHE"] = f"{folder}/kept{i}"
            for times in found.values():
                began = time.perf_counter()
                load_source(f"shards:{shards}")
                times.append(time.perf_counter() - began)
    for name, times in found.items():
        results.keep(name, {"seconds": quartiles(times), "bytes": size})
    print("\n\n".join(markdown(table) for table in contents_table(results.values)))
    return results.values


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
