"""Views of freshly composed scenes: what the methods look at."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from sslrob_mini.augment import compose, crop, place, recolour, turned
from sslrob_mini.pretrain.pool import Pool
from sslrob_mini.pretrain.settings import Views


class Batch(NamedTuple):
    """Views of n scenes, all in [0, 1].

    `full` (fulls · n, 3, h, w) has the scenes' first full views, then their second ones; `local` likewise, and may be empty.
    `labels` (n,) are the classes of the items, which self-supervised methods do not look at.
    """

    full: Tensor
    local: Tensor
    labels: Tensor


def draw(pool: Pool, n: int, views: Views, generator: Generator) -> Batch:
    """Views of n random scenes."""
    chosen = torch.randint(len(pool.items), (n,), generator=generator)
    behind = torch.randint(len(pool.backgrounds), (n,), generator=generator)
    layout = place(generator, n, views.placing)
    scenes = compose(turned(generator, pool.backgrounds[behind]), pool.items[chosen], layout)
    full = torch.cat([crop(generator, scenes, layout, views.full) for _ in range(views.fulls)])
    local = torch.cat([crop(generator, scenes, layout, views.local) for _ in range(views.locals)]) if views.locals else full[:0]
    coloured = [recolour(generator, part, views.colours) if len(part) else part for part in (full, local)]
    return Batch(coloured[0], coloured[1], pool.labels[chosen])
