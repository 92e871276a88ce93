"""Measurements of the package's speed. Run one as a module from the repository: `python -m benchmarks.step --help`."""
