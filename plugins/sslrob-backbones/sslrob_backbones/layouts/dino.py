"""DINO and iBOT, which share their code: a teacher, a student, or one of them alone."""

from __future__ import annotations

from itertools import product

from sslrob_backbones.layouts.classes import NAMESPACE, NUMPY_SCALARS, PATHS
from sslrob_backbones.layouts.placed import RESNET, VIT, Place, Placed

TRAINED = tuple(Place((key,), prefix) for key, prefix in product(("teacher", "student"), ("backbone.", "module.backbone.")))


class Dino(Placed):
    """The backbone alone, or the teacher (else the student) of a whole training, whose DINO head stays.

    Source: facebookresearch/dino, utils.load_pretrained_weights and main_dino.py.
    """

    name = "dino"
    kinds = (RESNET, VIT)
    places = (*TRAINED, Place())
    allowed = (*NAMESPACE, *PATHS, *NUMPY_SCALARS)


class DinoLinear(Placed):
    """A linear head alone: of one class token and mean patch, or of the class tokens of four blocks.  Source: dino's eval_linear.py."""

    name = "dino-linear"
    heads = (Place(("state_dict",), "module.linear."),)


class Ibot(Placed):
    """The backbone in `state_dict`, or the teacher (else the student) of a whole training; heads and the masked patch's embedding stay.

    Source: bytedance/ibot, extract_backbone_weights.py and main_ibot.py.
    """

    name = "ibot"
    kinds = (VIT,)
    places = (Place(("state_dict",)), *TRAINED)
    drops = r"head\.|masked_embed$"
    marks = r"masked_embed$"
    allowed = (*NAMESPACE, *PATHS, *NUMPY_SCALARS)
