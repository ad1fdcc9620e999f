"""What an attack on a segmentor raises, pixel by pixel.

A loss has a value and a gradient, and they need not be of one function: attacks that weigh pixels differ in the gradient alone.  Their value
is the unweighted one, so that turning a pixel never lowers it: a search that compares values, as APGD does, would otherwise shun what it is
after (Croce, Singh & Hein, Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models, ECCV 2024, track it, too).
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn import functional as F

from sslrob_mmseg.dataset import IGNORED

NAMES = "ce", "segpgd", "cospgd", "mask-ce", "js", "mask-spherical"


def pixels(logits: Tensor, truth: Tensor, name: str, progress: float) -> Tensor:
    """(n, h, w) the loss of every pixel; 0, without gradient, where nothing counts.

    Args:
        logits: (n, classes, h, w).
        truth: (n, h, w) classes, or `IGNORED`.
        name: one of `NAMES`; see `Segmentor.loss`.
        progress: how much of the attack is over, in [0, 1].
    """
    if name == "js":
        return _divergence(logits, truth)
    if name == "mask-spherical":
        return _weighed(-_share_of_length(logits, truth), _left(logits, truth))
    crossed = F.cross_entropy(logits, truth, ignore_index=IGNORED, reduction="none")
    if name == "ce":
        return crossed
    if name == "segpgd":
        return _weighed(crossed, torch.where(_right(logits, truth), 1 - progress / 2, progress / 2))
    if name == "cospgd":
        return _weighed(crossed, _cosine(logits.detach(), truth))
    if name == "mask-ce":
        return _weighed(crossed, _left(logits, truth))
    raise ValueError(f"no loss {name!r}; there are {', '.join(NAMES)}")


def _weighed(values: Tensor, weights: Tensor) -> Tensor:
    """The values as they are; their gradients times the weights, through which none flows."""
    weighed = weights * values
    return values.detach() + (weighed - weighed.detach())


def _right(logits: Tensor, truth: Tensor) -> Tensor:
    return logits.argmax(1) == truth


def _left(logits: Tensor, truth: Tensor) -> Tensor:
    """The pixels that are right; in an image without any, all."""
    right = _right(logits, truth)
    return right | ~right.flatten(1).any(1)[:, None, None]


def _of_truth(values: Tensor, truth: Tensor) -> Tensor:
    """(n, h, w) of the values (n, classes, h, w), those of the true classes; any where nothing counts."""
    return values.gather(1, torch.where(truth == IGNORED, 0, truth)[:, None])[:, 0]


def _divergence(logits: Tensor, truth: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of the softmax p and the one-hot label, in nats: a function of the label's p alone.

    KL to their mean is log 2 - log(1 + p) for the label, (1 - p) log 2 + p log(2p / (1 + p)) for the softmax; this is half their sum.
    """
    logs = _of_truth(logits.log_softmax(1), truth)
    p = logs.exp()
    return (log(2) + (p * logs - (1 + p) * p.log1p()) / 2) * (truth != IGNORED)


def _share_of_length(logits: Tensor, truth: Tensor) -> Tensor:
    """The true class's logit over the Euclidean length of all."""
    return _of_truth(F.normalize(logits, dim=1), truth) * (truth != IGNORED)


def _cosine(logits: Tensor, truth: Tensor) -> Tensor:
    """Between the softmax and the one-hot label, which is the label's probability over the length of all."""
    shares = logits.softmax(1)
    return _of_truth(shares, truth) / shares.norm(dim=1)
