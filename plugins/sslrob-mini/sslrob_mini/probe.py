"""What frozen embeddings are worth: a linear probe and a nearest-neighbour classifier on the shipped crops.

`python -m sslrob_mini.probe [NAME ...]` prints both for backbones of the collection, with random weights and raw pixels beside them.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sslrob import weights
from sslrob.backbone import Backbone
from sslrob.probe import DECAY, embeddings, logistic_regression
from sslrob_mini.items import CLASSES
from sslrob_mini.resnet import ResNet

NEIGHBOURS = 20
TEMPERATURE = 0.07
CROPS = Path(__file__).parent / "data" / "crops"
WEIGHTS = Path(__file__).parent / "weights"


def linear_probe(known: Tensor, labels: Tensor, asked: Tensor, decay: float = DECAY) -> Tensor:
    """Classes (m,) of embeddings `asked` (m, width) by a logistic regression on `known` (n, width) with labels (n,)."""
    weight, bias = logistic_regression(known, labels, decay)
    return (asked @ weight.T + bias).argmax(1)


def nearest_neighbours(known: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """Classes (m,) of embeddings `asked` (m, width): each of the 20 nearest of `known` (n, width) votes with exp(cosine / 0.07)."""
    mean = known.mean(0)
    similarity = F.normalize(asked - mean, dim=1) @ F.normalize(known - mean, dim=1).T
    nearest, index = similarity.topk(min(NEIGHBOURS, len(known)), dim=1)
    votes = torch.zeros(len(asked), int(labels.max()) + 1)
    return votes.scatter_add_(1, labels[index], torch.exp(nearest / TEMPERATURE)).argmax(1)


def read_crops(split: str, folder: Path = CROPS) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 64, 64) in [0, 1] of a split of the shipped crops, and their labels (n,)."""
    files = [(path, label) for label, name in enumerate(CLASSES) for path in sorted((folder / split / name).glob("*.jpg"))]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
    return images, torch.tensor([label for _, label in files])


def backbone(name: str, folder: Path) -> Backbone:
    """A backbone that `sslrob_mini.pretrain` trained, of the weights in a folder."""
    from sslrob_mini.pretrain.methods import build
    from sslrob_mini.pretrain.table import ALL

    built = build(ALL[name].architecture)
    built.load_state_dict(weights.load(folder / f"{name}.safetensors"))
    return built


def main(arguments: list[str]) -> int:
    """Print a table: linear probe and 20-NN accuracy in percent of embeddings of the test crops, fitted on the training crops."""
    from sslrob_mini.pretrain.table import ALL

    parser = argparse.ArgumentParser(prog="python -m sslrob_mini.probe", description="What frozen embeddings are worth, in percent.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which backbones; default: all that have weights in the folder")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, metavar="DIR", help="default: the collection's")
    options = parser.parse_args(arguments)
    there = [name for name in ALL if (options.weights / f"{name}.safetensors").exists()]
    missing = sorted(set(options.names) - set(there))
    if missing:
        parser.error(f"no weights of {missing[0]!r} in {options.weights}; there are: {', '.join(there) or 'none'}")
    torch.set_num_threads(1)  # more of them fight over a loaded machine
    (known, labels), (asked, answers) = read_crops("train"), read_crops("test")
    print(f"{'embedding':<24}{'linear':>8}{'20-NN':>8}")
    torch.manual_seed(0)
    networks = {"random weights": ResNet(), **{name: backbone(name, options.weights) for name in options.names or there}}
    rows = {"raw pixels": (known.flatten(1), asked.flatten(1))}
    for name in [*rows, *networks]:
        a, b = rows[name] if name in rows else (embeddings(networks[name], images) for images in (known, asked))
        scores = [100 * (classify(a, labels, b) == answers).float().mean().item() for classify in (linear_probe, nearest_neighbours)]
        print(f"{name:<24}{scores[0]:>8.1f}{scores[1]:>8.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
