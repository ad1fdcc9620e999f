"""What frozen embeddings are worth: a logistic regression on them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from sslrob.backbone import Backbone
from sslrob.data import Batch

DECAY = 1e-2  # of the squared weights


@torch.no_grad()
def embeddings(backbone: Backbone, images: Tensor, batch: int = 250) -> Tensor:
    """Embeddings (n, width) of images (n, 3, h, w) in [0, 1] by the backbone in evaluation mode, which is then as it was."""
    training = backbone.training
    backbone.eval()
    pooled = [backbone(part).pooled.float() for part in images.split(batch)]  # type: ignore[no-untyped-call]
    backbone.train(training)
    return torch.cat(pooled)


def embedded(backbone: Backbone, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Embeddings (n, width) of all images, in evaluation mode, and their labels (n,); both on the backbone's device."""
    device = backbone.mean.device
    parts = [(embeddings(backbone, batch.images.to(device)), torch.as_tensor(batch.targets, device=device)) for batch in batches]
    pooled, labels = zip(*parts, strict=True)
    return torch.cat(pooled), torch.cat(labels)


def logistic_regression(known: Tensor, labels: Tensor, decay: float = DECAY, classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Weight (classes, width) and bias (classes,) fitted by L-BFGS to embeddings (n, width) with labels (n,).

    It is fitted, and decayed, on standardised embeddings, and written so that it takes them as they are.

    Args:
        classes: how many; by default as many as the labels name.
    """
    mean, std = known.mean(0), known.std(0) + 1e-6
    standard = (known - mean) / std
    weight = torch.zeros(classes or int(labels.max()) + 1, known.shape[1], device=known.device, requires_grad=True)
    bias = torch.zeros(len(weight), device=known.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(standard @ weight.T + bias, labels) + decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    weight, bias = weight.detach() / std, bias.detach()
    return weight, bias - weight @ mean
