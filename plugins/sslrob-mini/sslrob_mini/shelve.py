"""`python -m sslrob_mini.shelve OUT`: put pretrained backbones into the collection, with their logs and zoo entries."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from sslrob.errors import SslrobError
from sslrob.weights import sha256
from sslrob_mini.pretrain.methods import build
from sslrob_mini.pretrain.settings import Settings, Views
from sslrob_mini.pretrain.table import ALL, METHODS

WEIGHTS = Path(__file__).parent / "weights"
POOL = 60_000  # items that scenes are composed of
TITLES = {
    "barlow-twins": ("Barlow Twins", "arXiv:2103.03230"),
    "byol": ("BYOL", "arXiv:2006.07733"),
    "dino": ("DINO", "arXiv:2104.14294"),
    "moco-v3": ("MoCo v3", "arXiv:2104.02057"),
    "simclr": ("SimCLR", "arXiv:2002.05709"),
    "swav": ("SwAV", "arXiv:2006.09882"),
    "vicreg": ("VICReg", "arXiv:2105.04906"),
    "supervised": ("supervised", ""),
}


def record(name: str, weights: Path) -> dict[str, Any]:
    """The zoo's entry of a backbone of the table, whose weights and log lie in a folder."""
    settings = ALL[name]
    schedule, architecture = settings.schedule, settings.architecture
    title, paper = TITLES[origin(name)]
    return {
        "use": architecture.use,
        **({"settings": {"widths": list(architecture.widths)}} if architecture.widths else {}),
        "weights": {"file": f"{name}.safetensors", "sha256": sha256(weights / f"{name}.safetensors")},
        **({"family": name} if name in METHODS else {}),
        "pretraining": {
            "method": title,
            "data": f"sslrob-mini pool ({POOL:,} items)",
            "epochs": round(schedule.steps * schedule.batch / POOL, 2),
            "steps": schedule.steps,
            "batch_size": schedule.batch,
            "augmentations": augmentations(settings.views),
            "seed": schedule.seed,
            "recipe": f"python -m sslrob_mini.pretrain {name}",
            "log": f"{name}.log.jsonl",
            **({} if name in METHODS else {"notes": f"as {origin(name)}, but {difference(settings, METHODS[origin(name)])}"}),
        },
        "paper": paper,
        "license": "Apache-2.0",
        "parameters": sum(parameter.numel() for parameter in build(architecture).parameters()),
    }


def origin(name: str) -> str:
    """The method that a variant varies; a method's own name."""
    return max((method for method in METHODS if name == method or name.startswith(f"{method}-")), key=len)


def augmentations(views: Views) -> list[str]:
    """What a view goes through, in words."""
    crops = f"{views.fulls} × {views.full.size}"
    words = [f"multi-crop {crops} + {views.locals} × {views.local.size}" if views.locals else f"crop {crops}"]
    colours = views.colours
    return words + [word for word, used in (("colour jitter", colours.share), ("grey", colours.grey), ("blur", colours.blur)) if used]


def difference(settings: Settings, method: Settings) -> str:
    """What a variant has otherwise than its method, in words."""
    own, usual = settings.schedule, method.schedule
    pairs = {
        "seed": (own.seed, usual.seed),
        "batch size": (own.batch, usual.batch),
        "steps": (own.steps, usual.steps),
        "learning rate": (own.learning_rate, usual.learning_rate),
        "weight decay": (own.weight_decay, usual.weight_decay),
        "architecture": (settings.architecture.use, method.architecture.use),
        "widths": (" ".join(map(str, settings.architecture.widths)), "the usual"),
        "augmentations": (", ".join(augmentations(settings.views)), ", ".join(augmentations(method.views))),
    }
    return "; ".join(f"{what} {value} for {other}" for what, (value, other) in pairs.items() if value not in (other, ""))


def shelve(out: Path, names: list[str], weights: Path = WEIGHTS) -> Path:
    """Copy finished backbones and their logs into the collection, and write the zoo file of all that are there.

    Raises:
        SslrobError: one of them has not been trained to its end.
    """
    for name in names:
        files = [out / f"{name}{suffix}" for suffix in (".safetensors", ".log.jsonl")]
        if not all(file.exists() for file in files):
            raise SslrobError(f"{name!r} has not been trained to its end in {str(out)!r}", hint=f"python -m sslrob_mini.pretrain {name}")
        for file in files:
            shutil.copyfile(file, weights / file.name)
    there = {f"mini-{name}": record(name, weights) for name in ALL if (weights / f"{name}.safetensors").exists()}
    path = weights / "backbones.yaml"
    text = yaml.safe_dump({"schema": 1, "backbones": there}, sort_keys=False, width=140, allow_unicode=True)
    path.write_text(f"# Written by `python -m sslrob_mini.shelve`.\n{text}", encoding="utf-8")
    return path


def main() -> int:
    """Exit status of the command: 0, or 2 with the error told on stderr."""
    parser = argparse.ArgumentParser(prog="python -m sslrob_mini.shelve", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that sslrob_mini.pretrain wrote to")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which backbones; default: all that are finished there")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(ALL))
    if unknown:
        parser.error(f"no backbone is named {unknown[0]!r}; known: {', '.join(ALL)}")
    finished = [name for name in ALL if (options.out / f"{name}.safetensors").exists()]
    try:
        print(shelve(options.out, options.names or finished))
    except SslrobError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
