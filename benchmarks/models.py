"""The networks that are attacked: a backbone of the zoo under its linear head, or a torchvision ResNet that was hardly trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslrob import assemble, zoo_files
from sslrob.backbone import Backbone, Features
from sslrob.builtin.classification import LinearClassifier
from sslrob.choice import choose, usual_dataset
from sslrob.data import batches
from sslrob.plugins import installed

TORCHVISION = ("resnet18", "resnet50")


class Passes:
    """How many images went through a model, forwards and backwards; its copies count here too."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Passes:
        return self

    def back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class Counted(LinearClassifier):
    """A classifier that counts its passes."""

    def __init__(self, body: Backbone, head: nn.Linear) -> None:
        super().__init__(body, head.out_features)
        self.head, self.passes = head, Passes()

    def forward(self, images: Tensor) -> Tensor:
        self.passes.forwards += len(images)
        logits = super().forward(images)
        if logits.requires_grad:
            logits.register_hook(self.passes.back)  # type: ignore[no-untyped-call]
        return logits


class Published(Backbone):
    """A ResNet of torchvision with random weights."""

    channels, strides = (), ()

    def __init__(self, name: str) -> None:
        super().__init__()
        import torchvision

        self.net = torchvision.models.get_model(name)
        self.width, self.net.fc = self.net.fc.in_features, nn.Identity()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.std: Tensor

    def forward(self, images: Tensor) -> Features:
        return Features(self.net((images - self.mean) / self.std), ())


def made(name: str, count: int, size: int | None, steps: int, device: torch.device) -> tuple[Counted, Tensor, Tensor, str]:
    """A model, images (n, 3, h, w) with labels (n,), and what to call it all.

    Args:
        name: of a backbone of the zoo, or one of `TORCHVISION`.
        count: of images.
        size: pixels that the images are resized to; None: as they are.
        steps: batches of 16 that a network of torchvision learns; its own answers are the labels, as few are right by then.
    """
    zoo, task = zoo_files.load(), assemble.task("classification")
    backbone = "mini-swav" if name in TORCHVISION else name
    chosen = usual_dataset(installed().find("task", "classification"), zoo)
    dataset, record = zoo.datasets[chosen], zoo.heads[choose(backbone, chosen, "linear", zoo).head]
    batch = next(iter(batches(assemble.dataset(dataset, task), count))).to(device)
    images, labels = _resized(batch.images, size), torch.as_tensor(batch.targets, device=device)
    if name not in TORCHVISION:
        body = assemble.backbone(zoo.backbones[name], name=name)
        victim: Any = assemble.victim(record, body, task, classes=dataset.classes, name=name, dataset=dataset, device=device)
        return Counted(victim.body, victim.head).eval(), images, labels, name
    torch.manual_seed(0)
    body = Published(name)
    model = Counted(body, nn.Linear(body.width, len(dataset.classes))).to(device)
    _learn(model, assemble.fit_split(dataset, task, dataset.classes), size, steps)
    with torch.no_grad():
        labels = model(images).argmax(1)
    return (
        model,
        images,
        labels,
        f"{name} after {steps} steps at {images.shape[-1]} px" if steps else f"{name}, random, {images.shape[-1]} px",
    )


def _learn(model: Counted, data: Any, size: int | None, steps: int) -> None:
    """A few steps of Adam; without them, the batch norms see one batch, or a random ResNet-50 would give everything one answer."""
    optimiser, device = torch.optim.Adam(model.parameters(), 1e-3), model.head.weight.device
    model.train()
    for step, batch in enumerate(batches(data, 16, indices=torch.randperm(len(data)).tolist())):
        images = _resized(batch.images.to(device), size)
        if step >= steps:
            with torch.no_grad():
                model(images)
            break
        loss = F.cross_entropy(model(images), torch.as_tensor(batch.targets, device=device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    optimiser.zero_grad()
    model.eval()


def _resized(images: Tensor, size: int | None) -> Tensor:
    return images if size is None else F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
