"""A segmentor of mmseg as a victim."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sslrob_mmcv.bridge import Maps, Prepare
from torch import Tensor, nn

from sslrob.backbone import Backbone
from sslrob.errors import SslrobError
from sslrob.task import Victim
from sslrob_mmseg.dataset import IGNORED
from sslrob_mmseg.losses import NAMES, pixels


class Segmentor(Victim):
    """Outputs: logits (n, classes, h, w) of every pixel of the images; whole or from sliding windows, as the model's `test_cfg` says.

    Targets: (h, w) uint8, a class or `IGNORED`.

    Quality: the share of labelled pixels that are right, in [0, 1].  Fooled: none is right any more, so that an attack does not stop while
    mIoU can still fall.  An image without labelled pixels has nothing to lose: it is fooled from the start, its quality and its losses are 0.
    """

    losses = NAMES
    strongest = ("cospgd", "js", "mask-spherical", "mask-ce")  # measured on the embedded collection

    def __init__(self, segmentor: nn.Module, prepare: Prepare) -> None:
        super().__init__()
        if segmentor.out_channels == 1:
            raise SslrobError(
                "this segmentor tells two classes apart by one output channel, which is not supported",
                hint="take a model with num_classes=2 and out_channels=2",
            )
        self.segmentor, self.prepare = segmentor, prepare
        # The heads of Hamburger and SegNeXt start from random bases: every image gets the same ones, at every look.
        self.draws = any(getattr(module, "rand_init", False) for module in segmentor.modules())

    @property
    def backbone(self) -> Backbone | None:
        maps = self.segmentor.backbone
        inner = maps.backbone if isinstance(maps, Maps) else None
        return inner if isinstance(inner, Backbone) else None

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self._repeatable(image) for image in images.unbind()]) if self.draws else self._logits(images)

    def _repeatable(self, image: Tensor) -> Tensor:
        """The logits (1, classes, h, w) of one image (3, h, w), with the same random numbers every time."""
        with torch.random.fork_rng([image.device] if image.is_cuda else []):
            torch.manual_seed(0)
            return self._logits(image[None])

    def _logits(self, images: Tensor) -> Tensor:
        h, w = images.shape[-2:]
        x = self.prepare(images)
        size = tuple(x.shape[-2:])
        metas = [{"ori_shape": size, "img_shape": size, "pad_shape": size, "padding_size": [0] * 4} for _ in x]
        logits: Tensor = self.segmentor.inference(x, metas)
        return logits[..., :h, :w]

    def loss(self, outputs: Tensor, targets: Sequence[Tensor], name: str, progress: float) -> Tensor:
        """The mean over an image's labelled pixels.  No gradient flows through weights, and no value counts them: see `sslrob_mmseg.losses`.

        `ce`: cross-entropy.
        `segpgd`: its gradient weighs 1 - λ on pixels that are right, λ on those that are wrong; λ grows from 0 to 1/2 (Gu et al., SegPGD,
        ECCV 2022; SEA's balanced cross-entropy).
        `cospgd`: its gradient weighs the cosine between the softmax and the one-hot label (Agnihotri et al., CosPGD, ICML 2024).
        `mask-ce`: its gradient is that of the pixels that are right, as long as there are any.
        `js`: the Jensen-Shannon divergence between the softmax and the one-hot label, bounded by log 2.
        `mask-spherical`: minus the true logit over the length of the logits; the gradient as in `mask-ce`.
        The last three and `segpgd` are SEA's (Croce, Singh & Hein, ECCV 2024).
        """
        truth = self._truth(outputs, targets)
        return pixels(outputs, truth, name, progress).flatten(1).sum(1) / _labelled(truth)

    def fooled(self, outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        return self.quality(outputs, targets) == 0

    def quality(self, outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        truth = self._truth(outputs, targets)
        return (outputs.argmax(1) == truth).flatten(1).sum(1) / _labelled(truth)

    def predict(self, outputs: Tensor) -> list[Tensor]:
        """(h, w) uint8, the class of each pixel."""
        return list(outputs.argmax(1).byte().cpu())

    def _truth(self, outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """(n, h, w) int64."""
        stack = torch.stack(list(targets))
        classes = outputs.shape[1]
        stranger = stack[(stack >= classes) & (stack != IGNORED)]
        if len(stranger):
            raise SslrobError(
                f"a mask holds label {int(stranger.max())}, but this victim tells {classes} classes apart",
                hint="evaluate it on the data set whose classes it was trained on",
            )
        return stack.to(outputs.device, torch.long)


def _labelled(truth: Tensor) -> Tensor:
    """(n,) labelled pixels, at least 1."""
    return (truth != IGNORED).flatten(1).sum(1).clamp_min(1)
