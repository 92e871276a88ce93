"""What a result was computed with: versions, machine, and the state of the working folder's repository."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sskd.memory import allocator


def environment() -> dict[str, Any]:
    """Versions, processor, accelerator and git state, as plain values for a config or a result file."""
    packages = ("sskd", "torchvision", "timm", "numpy")
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # with the build, which the package's metadata leaves out
        **{name: _version(name) for name in packages},
        "platform": platform.platform(),
        "processor": processor(),
        "processes": int(os.environ.get("WORLD_SIZE", 1)),  # as torchrun says it
        "threads": torch.get_num_threads(),
        "allocator": allocator(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git": git_state(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout
        return "not installed"


def processor() -> str:
    """The processor's name and how many of its cores this machine has."""
    cores = torch.multiprocessing.cpu_count()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {cores} cores"


def git_state() -> dict[str, Any] | None:
    """Commit of the working folder, and whether it has uncommitted changes; None outside a repository."""
    try:
        commit, changes = (
            subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "uncommitted_changes": bool(changes)}
