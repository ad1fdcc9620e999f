"""Which class trains which settings."""

from functools import partial

import torch
from lightly.loss import BarlowTwinsLoss, NTXentLoss, VICRegLoss
from lightly.models.modules import BarlowTwinsProjectionHead, SimCLRProjectionHead

from sslrob_mini.pretrain.methods import Method, SupervisedMethod, TwoViews
from sslrob_mini.pretrain.momentum import ByolMethod, DinoMethod, MocoV3Method
from sslrob_mini.pretrain.settings import BarlowTwins, Byol, Dino, MocoV3, Settings, Simclr, Supervised, Swav, Vicreg
from sslrob_mini.pretrain.swav import SwavMethod


def start(settings: Settings) -> Method:
    """The method with its initial weights, which follow from the settings' seed."""
    torch.manual_seed(settings.schedule.seed)
    match settings:
        case Supervised():
            return SupervisedMethod(settings)
        case Simclr():
            head = partial(SimCLRProjectionHead, hidden_dim=settings.hidden, output_dim=settings.embedding)
            return TwoViews(settings, head, NTXentLoss(settings.temperature))
        case BarlowTwins():
            head = partial(BarlowTwinsProjectionHead, hidden_dim=settings.hidden, output_dim=settings.embedding)
            return TwoViews(settings, head, BarlowTwinsLoss(settings.off_diagonal))
        case Vicreg():
            head = partial(BarlowTwinsProjectionHead, hidden_dim=settings.hidden, output_dim=settings.embedding)
            return TwoViews(settings, head, VICRegLoss(settings.invariance, settings.variance, settings.covariance))
        case Byol():
            return ByolMethod(settings)
        case MocoV3():
            return MocoV3Method(settings)
        case Dino():
            return DinoMethod(settings)
        case Swav():
            return SwavMethod(settings)
    raise TypeError(f"no method trains {type(settings).__name__}")
