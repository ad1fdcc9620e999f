"""SwAV (Caron et al. 2020) with lightly's loss, projection head and prototypes."""

import torch
from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
from torch import Tensor
from torch.nn import functional as F

from sslrob_mini.pretrain.methods import Method, embed
from sslrob_mini.pretrain.settings import Swav
from sslrob_mini.pretrain.views import Batch


class SwavMethod(Method):
    """Two full views and some local ones of each scene; every view predicts the assignments of the full ones."""

    def __init__(self, settings: Swav) -> None:
        super().__init__(settings)
        self.head = SwaVProjectionHead(self.backbone.width, settings.hidden, settings.embedding)
        self.prototypes = SwaVPrototypes(settings.embedding, settings.prototypes, settings.frozen)
        self.prototypes.heads[0].bias = None  # the paper's prototypes have none: scores are cosines
        self.criterion = SwaVLoss(settings.temperature, settings.sinkhorn_iterations, settings.sinkhorn_epsilon)

    def before(self, step: int) -> None:
        """Put the prototypes back on the unit sphere."""
        with torch.no_grad():
            self.prototypes.normalize()

    def objective(self, batch: Batch, step: int) -> Tensor:
        full = self.scores(batch.full, step).chunk(2)
        local = self.scores(batch.local, step).chunk(self.drawn.locals) if self.drawn.locals else ()
        return self.criterion(list(full), list(local)).squeeze()

    def scores(self, views: Tensor, step: int) -> Tensor:
        """Cosines (n, prototypes) of views with the prototypes."""
        scores: Tensor = self.prototypes(F.normalize(self.head(embed(self.backbone, views)), dim=1), step)
        return scores
