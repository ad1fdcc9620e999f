"""SwAV, DeepCluster v2 and SeLa v2."""

from __future__ import annotations

from sslrob_backbones.layouts.classes import NUMPY_SCALARS
from sslrob_backbones.layouts.placed import RESNET, Place, Placed


class Swav(Placed):
    """The network in DataParallel's `module.`, with projector and prototypes that stay; the file itself, or its `state_dict`.

    Source: facebookresearch/swav, eval_linear.py.  Checkpoints of a training that goes on hold rates from a NumPy schedule.
    """

    name = "swav"
    kinds = (RESNET,)
    places = (Place((), "module."), Place(("state_dict",), "module."))
    drops = marks = r"projection_head\.|prototypes\."
    allowed = NUMPY_SCALARS
