"""Imports point one way, as CONTRIBUTING.md says."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def imported(file: Path) -> set[str]:
    """Modules and packages of sskd, directly below it."""
    names = list[str]()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            names += [node.module or ""] if node.module != "sskd" else [f"sskd.{one.name}" for one in node.names]
        elif isinstance(node, ast.Import):
            names += [one.name for one in node.names]
    return {name.split(".")[1] for name in names if name.startswith("sskd.")}


def test_imports_point_one_way() -> None:
    said = re.search(r"Imports point one way: `([^`]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert said
    ranks = {name.strip(): i for i, level in enumerate(said[1].split("->")) for name in level.split(",")}
    found = list[tuple[str, str]]()
    for name, rank in ranks.items():
        place = ROOT / "src" / "sskd" / name
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        assert files
        for file in files:
            above = {one for one in imported(file) if ranks.get(one, 0) > rank}
            aside = {one for one in imported(file) if ranks.get(one) == rank and one != name} if rank else set()
            found += [(str(file.relative_to(ROOT)), one) for one in above | aside]
    assert not found
