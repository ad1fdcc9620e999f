"""What is installed here, which devices there are, what is broken or missing, and the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import sslrob
from sslrob import plugins as plugin_host
from sslrob import weights, zoo_files
from sslrob.errors import SslrobError
from sslrob.plugins import HOOKS, Plugins

LIBRARIES = ("torch", "torchvision", "timm", "mmdet", "mmsegmentation", "mmengine", "mmcv", "mmcv-lite")
FIRST_PARTY = {
    "sslrob-mini": "small data and backbones, to start with",
    "sslrob-mmdet": "detection, through mmdet",
    "sslrob-mmseg": "segmentation, through mmsegmentation",
}
LITTLE = 2**30  # bytes free in the cache folder, below which a large checkpoint may not fit


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        state: "ok"; "missing": not there, and not needed for everything; "broken": there, and does not work.
        found: what was seen.
        fix: the command, or the step, that mends it.
    """

    area: str
    name: str
    state: Literal["ok", "missing", "broken"]
    found: str
    fix: str = ""


def examine(zoos: Sequence[Path] = (), plugins: Plugins | None = None) -> list[Check]:
    """Every check, in the order to read them.

    Args:
        zoos: further zoo files of the user's.
        plugins: those of this environment by default.
    """
    plugins = plugin_host.installed() if plugins is None else plugins
    return [*_packages(), *_plugins(plugins), *_zoo(zoos, plugins), *_devices(), *_cache()]


def install(name: str) -> str:
    """The command that installs a distribution, or what it lacks: from this checkout, if sslrob runs from one that has it."""
    pip = "python -m pip install" if find_spec("pip") else "uv pip install"
    local = Path(sslrob.__file__).parent.parent / "plugins" / name
    return f"{pip} {f'-e {local}' if local.is_dir() else name}"


def _packages() -> Iterator[Check]:
    yield Check("packages", "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Check("packages", "sslrob", "ok", version("sslrob"))
    for name in LIBRARIES:
        if found := _version(name):
            yield Check("packages", name, "ok", found)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _plugins(plugins: Plugins) -> Iterator[Check]:
    for origin in plugins.origins:
        offers = [f"{len(found)} {kind}{'s' * (len(found) != 1)}" for kind in HOOKS if (found := _offered(plugins, kind, origin))]
        name = origin.split()[0]
        problems = list(unmet(name))
        told = [origin.removeprefix(name).strip(), *problems, *([", ".join(offers)] if offers else [])]
        yield Check("plugins", name, "broken" if problems else "ok", "; ".join(told), install(name) if problems else "")
    for origin, reason in plugins.broken.items():
        name = origin.split()[0]
        lacking = "ImportError" in reason or "ModuleNotFoundError" in reason
        fix = install(name) if lacking else f"report it to the author of {name}; until it is mended, everything else works"
        yield Check("plugins", origin, "broken", reason, fix)
    here = {origin.split()[0] for origin in [*plugins.origins, *plugins.broken]}
    for name, what in FIRST_PARTY.items():
        if name not in here:
            restricted = os.environ.get("SSLROB_PLUGINS") is not None and _version(name)
            yield Check("plugins", name, "missing", what, "add it to SSLROB_PLUGINS, or unset that" if restricted else install(name))


def _offered(plugins: Plugins, kind: str, origin: str) -> list[str]:
    return [c.name for c in plugins.of(kind) if c.plugin == origin]


def unmet(name: str) -> Iterator[str]:
    """What a distribution requires and does not find, a phrase each."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in distribution(name).requires or ()]
    except PackageNotFoundError:
        return
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found = _version(requirement.name)
            if not found:
                yield f"needs {requirement.name}, which is not installed"
            elif not requirement.specifier.contains(found, prereleases=True):
                yield f"needs {requirement.name}{requirement.specifier}, found {found}"


def _zoo(zoos: Sequence[Path], plugins: Plugins) -> Iterator[Check]:
    try:
        zoo = zoo_files.load(zoos, plugins)
    except SslrobError as error:
        yield Check("zoo", "file", "broken", str(error), error.hint)
        return
    entries: dict[Path, int] = {}
    for path in zoo.origins.values():
        entries[path] = entries.get(path, 0) + 1
    for path, n in entries.items():
        yield Check("zoo", "file", "ok", f"{path}, {n} {'entry' if n == 1 else 'entries'}")
    for file, reason in zoo.broken.items():
        yield Check("zoo", "file", "broken", f"{file}: {reason}", "report it to the author of its plugin; its entries are left out")
    gone = [
        (name, record.weights.file, zoo.origins[f"{kind}s", name])
        for kind in ("backbone", "head", "victim")
        for name, record in zoo.of(kind).items()
        if record.weights and record.weights.file and not record.weights.file.is_file()
    ]
    for name, file, origin in gone:
        if origin == zoo_files.first_party().resolve():  # sslrob ships none: this one is to be put there
            yield Check("zoo", name, "missing", f"no weights at {file}", f"put them there: sslrob zoo show {name}")
            continue
        yield Check("zoo", name, "broken", f"no weights at {file}", f"correct the path in {origin}, or reinstall the plugin that brings it")
    for name, dataset in zoo.datasets.items():
        if not dataset.path.exists():
            yield Check("zoo", name, "missing", f"no data at {dataset.path}", f"put it there: sslrob zoo show {name}")


def _devices() -> Iterator[Check]:
    try:
        import torch
    except Exception as error:  # a torch that does not fit its machine raises anything
        yield Check("devices", "torch", "broken", f"{type(error).__name__}: {error}", install("torch"))
        return
    yield Check("devices", "cpu", "ok", f"{os.cpu_count()} processors, torch uses {torch.get_num_threads()} threads")
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        yield Check("devices", f"cuda:{i}", "ok", f"{torch.cuda.get_device_name(i)}, {_size(free)} free of {_size(total)}")
    if not torch.cuda.is_available():
        why = (
            "this torch is built without CUDA" if torch.version.cuda is None else f"torch has CUDA {torch.version.cuda} and finds no device"
        )
        yield Check("devices", "cuda", "missing", why, "nothing to do on a machine without an NVIDIA GPU: --device cpu")


def _cache() -> Iterator[Check]:
    folder = weights.cache()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        yield Check("folders", "cache", "broken", f"{folder} cannot be written", "set SSLROB_CACHE to a folder that you may write to")
        return
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(there).free
    found = f"{folder}, {_size(held)} held, {_size(free)} free"
    if free < LITTLE:
        yield Check("folders", "cache", "broken", found, "free some space, or set SSLROB_CACHE to another folder")
    else:
        yield Check("folders", "cache", "ok", found)


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            break
        n /= 1000
    return f"{n:.0f} {unit}" if unit in ("B", "kB") else f"{n:.1f} {unit}"
