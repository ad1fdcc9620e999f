"""SwAV (Caron et al. 2020) with lightly's loss, projection head and prototypes."""

import torch
from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
from torch import Generator, Tensor
from torch.nn import functional as F

from sslrob_mini.augment import compose, crop, place, recolour, turned
from sslrob_mini.pretrain.methods import Method
from sslrob_mini.pretrain.pool import Pool
from sslrob_mini.pretrain.settings import Swav


class SwavMethod(Method):
    """Two full views and some local ones of each scene; every view predicts the assignments of the full ones."""

    def __init__(self, settings: Swav) -> None:
        super().__init__(settings.schedule)
        self.settings = settings
        self.head = SwaVProjectionHead(self.backbone.width, settings.hidden, settings.embedding)
        self.prototypes = SwaVPrototypes(settings.embedding, settings.prototypes, settings.frozen)
        self.prototypes.heads[0].bias = None  # the paper's prototypes have none: scores are cosines
        self.criterion = SwaVLoss(settings.temperature, settings.sinkhorn_iterations, settings.sinkhorn_epsilon)

    def before(self, step: int) -> None:
        """Put the prototypes back on the unit sphere."""
        with torch.no_grad():
            self.prototypes.normalize()

    def loss(self, pool: Pool, generator: Generator, step: int) -> Tensor:
        full, local = self.views(pool, generator)
        scores = [self.prototypes(F.normalize(self.head(self.embed(views)), dim=1), step) for views in (full, local)]
        return self.criterion(list(scores[0].chunk(2)), list(scores[1].chunk(self.settings.locals))).squeeze()

    def views(self, pool: Pool, generator: Generator) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] of a random batch of scenes: its two full views one after the other, and likewise its local ones."""
        n, settings = self.schedule.batch, self.settings
        chosen = torch.randint(len(pool.items), (n,), generator=generator)
        behind = torch.randint(len(pool.backgrounds), (n,), generator=generator)
        layout = place(generator, n, settings.placing)
        scenes = compose(turned(generator, pool.backgrounds[behind]), pool.items[chosen], layout)
        full = torch.cat([crop(generator, scenes, layout, settings.full) for _ in range(2)])
        local = torch.cat([crop(generator, scenes, layout, settings.local) for _ in range(settings.locals)])
        return recolour(generator, full, settings.colours), recolour(generator, local, settings.colours)
