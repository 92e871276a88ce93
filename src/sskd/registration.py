"""The zoo is made known to timm as soon as both are there, without importing timm before somebody needs it."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

ZOO = "sskd.models.zoo"  # importing it registers the networks


class _AfterTimm(MetaPathFinder):
    """Finds timm where the other finders do, and imports the zoo once timm's own import is done."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of timm, whose loader registers the zoo at the end; None for all other modules."""
        if fullname != "timm":
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            import_module(ZOO)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_with_timm() -> None:
    """Register the zoo now if timm is loaded, else when it will be."""
    if "timm" in sys.modules:
        import_module(ZOO)
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())
