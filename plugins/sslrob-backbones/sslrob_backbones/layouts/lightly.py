"""lightly's benchmark: seven methods from one code base."""

from __future__ import annotations

from sslrob_backbones.layouts.placed import RESNET, Place, Placed


class Lightly(Placed):
    """A Lightning checkpoint; `backbone.` is the evaluated network (DINO's teacher), the other networks and the projectors stay.

    The head is the online classifier that was trained beside it.  Hyper-parameters are a plain dict.  Source: lightly-ai/lightly,
    benchmarks/imagenet/resnet50 and utils/benchmarking/online_linear_classifier.py.
    """

    name = "lightly"
    kinds = (RESNET,)
    places = (Place(("state_dict",), "backbone."),)
    heads = (Place(("state_dict",), "online_classifier.classification_head."),)
    marks = r"online_classifier\."
