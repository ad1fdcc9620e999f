"""What frozen embeddings are worth: a linear probe and a nearest-neighbour classifier on the shipped crops.

`python -m sslrob_mini.probe [NAME=WEIGHTS ...]` prints both, with random weights and raw pixels beside them.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from sslrob.backbone import Backbone
from sslrob_mini.items import CLASSES
from sslrob_mini.resnet import ResNet

NEIGHBOURS = 20
TEMPERATURE = 0.07
DECAY = 1e-2  # of the linear probe's squared weights
CROPS = Path(__file__).parent / "data" / "crops"


@torch.no_grad()
def embeddings(backbone: Backbone, images: Tensor, batch: int = 250) -> Tensor:
    """Embeddings (n, width) of images (n, 3, h, w) in [0, 1] by the backbone in evaluation mode."""
    training = backbone.training
    backbone.eval()
    pooled = [backbone(part).pooled.float() for part in images.split(batch)]
    backbone.train(training)
    return torch.cat(pooled)


def logistic_regression(known: Tensor, labels: Tensor, decay: float = DECAY) -> tuple[Tensor, Tensor]:
    """Weight (classes, width) and bias (classes,) fitted by L-BFGS to embeddings (n, width) with labels (n,).

    It is fitted, and decayed, on standardised embeddings, and written so that it takes them as they are.
    """
    mean, std = known.mean(0), known.std(0) + 1e-6
    standard = (known - mean) / std
    weight = torch.zeros(int(labels.max()) + 1, known.shape[1], requires_grad=True)
    bias = torch.zeros(len(weight), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(standard @ weight.T + bias, labels) + decay * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    weight, bias = weight.detach() / std, bias.detach()
    return weight, bias - weight @ mean


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


def main(arguments: list[str]) -> int:
    """Print a table: linear probe and 20-NN accuracy in percent of embeddings of the test crops, fitted on the training crops."""
    torch.set_num_threads(1)  # more of them fight over a loaded machine
    (known, labels), (asked, answers) = read_crops("train"), read_crops("test")
    torch.manual_seed(0)
    rows = {"raw pixels": (known.flatten(1), asked.flatten(1))}
    for name, weights in (("random weights", ""), *(argument.split("=", 1) for argument in arguments)):
        backbone = ResNet()
        if weights:
            backbone.load_state_dict(load_file(weights))
        rows[name] = (embeddings(backbone, known), embeddings(backbone, asked))
    print(f"{'embedding':<24}{'linear':>8}{'20-NN':>8}")
    for name, (a, b) in rows.items():
        scores = [100 * (classify(a, labels, b) == answers).float().mean().item() for classify in (linear_probe, nearest_neighbours)]
        print(f"{name:<24}{scores[0]:>8.1f}{scores[1]:>8.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
