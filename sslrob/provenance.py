"""What a number was made with: kept in every run, so that it can be made again."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = ("torch", "torchvision", "numpy", "mmdet", "mmsegmentation", "mmengine", "mmcv", "mmcv-lite", "sslrob-mmcv")


def provenance(plugins: Iterable[str], device: str) -> dict[str, Any]:
    """Versions, machine, commit and time.

    Args:
        plugins: "distribution version" of those that took part.
        device: as torch calls it.
    """
    import torch

    chosen = torch.device(device)
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "sslrob": version("sslrob"),
        "plugins": sorted(plugins),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "device": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else device,
        "cuda": torch.version.cuda if chosen.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "command": sys.argv[1:],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> dict[str, str | bool] | None:
    """The commit of the working directory and whether files differ from it; None outside a git checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        changes = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return {"hash": head, "dirty": bool(changes.strip())}
