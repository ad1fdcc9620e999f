"""MoCo v1 to v3 and SimSiam: an encoder whose classifier was replaced by a projector, and linear evaluations that hold a whole network."""

from __future__ import annotations

from sslrob_backbones.layouts.placed import RESNET, VIT, Place, Placed

EVALUATED = Place(("state_dict",), "module.")  # a linear evaluation's network, classifier included


class Moco(Placed):
    """MoCo v1 and v2: the query encoder below `module.encoder_q.`, whose `fc` projects; key encoder and queue stay.

    Source: facebookresearch/moco, main_lincls.py; no linear evaluation was published.
    """

    name = "moco"
    kinds = (RESNET,)
    places = (Place(("state_dict",), "module.encoder_q."), EVALUATED)
    heads = (Place(("state_dict",), "module.fc."),)


class MocoV3(Placed):
    """The base encoder below `module.base_encoder.`, whose `fc` (ResNet) or `head` (ViT) projects; momentum encoder and predictor stay.

    ViT-S has 12 heads, which no shape tells.  Source: facebookresearch/moco-v3, main_lincls.py.
    """

    name = "moco-v3"
    kinds = (RESNET, VIT)
    places = (Place(("state_dict",), "module.base_encoder."), EVALUATED)
    heads = (Place(("state_dict",), "module.fc."), Place(("state_dict",), "module.head."))
    marks = r"fc\.|head\."


class SimSiam(Placed):
    """The encoder below `module.encoder.`, whose `fc` projects; the predictor stays.  Source: facebookresearch/simsiam, main_lincls.py."""

    name = "simsiam"
    kinds = (RESNET,)
    places = (Place(("state_dict",), "module.encoder."), EVALUATED)
    heads = (Place(("state_dict",), "module.fc."),)
