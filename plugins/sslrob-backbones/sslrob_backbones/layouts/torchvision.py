"""ResNets under torchvision's own names: torchvision, Barlow Twins, VICReg, and Salman et al.'s robust ones."""

from __future__ import annotations

from itertools import product

from sslrob_backbones.layouts.placed import RESNET, Place, Placed

WRAPPERS: tuple[tuple[str, ...], ...] = ((), ("state_dict",), ("model",))


class Torchvision(Placed):
    """A plain state dict.  `fc` is the head, absent from self-supervised files.

    VICReg pads by 1 and then by 2 where torchvision pads by 3, which is the same.  Barlow Twins' and VICReg's checkpoints of a training
    that goes on keep the network in `model`, below `module.backbone.`.
    """

    name = "torchvision"
    kinds = (RESNET,)
    places = tuple(Place(keys, prefix) for keys, prefix in product(WRAPPERS, ("", "module.", "module.backbone.")))
    heads = tuple(Place(keys, prefix) for keys, prefix in product(WRAPPERS, ("fc.", "module.fc.")))
    drops = marks = r"fc\."


class Robust(Placed):
    """Checkpoints of the `robustness` package: the network under attack is below `module.model.`; normalizer and attacker stay.

    Source: MadryLab/robustness, train.py and attacker.py; older ones keep it in `state_dict` (model_utils.py).
    """

    name = "robust"
    kinds = (RESNET,)
    places = (Place(("model",), "module.model."), Place(("state_dict",), "module.model."))
    heads = tuple(Place(place.keys, "module.model.fc.") for place in places)
