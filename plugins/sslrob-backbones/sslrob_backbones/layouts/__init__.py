"""The layouts of the published checkpoints: where each code base keeps its tensors, and what it calls them."""

from __future__ import annotations

LAYOUTS = {  # by name; a guess prefers the earlier where a file fits several as well
    "torchvision": "torchvision:Torchvision",
    "swav": "swav:Swav",
    "moco": "moco:Moco",
    "moco-v3": "moco:MocoV3",
    "simsiam": "moco:SimSiam",
    "dino": "dino:Dino",
    "dino-linear": "dino:DinoLinear",
    "dinov2": "dinov2:Dinov2",
    "dinov2-linear": "dinov2:Dinov2Linear",
    "mae": "masked:Mae",
    "msn": "masked:Msn",
    "ibot": "dino:Ibot",
    "vissl": "vissl:Vissl",
    "openmmlab": "openmmlab:OpenMMLab",
    "lightly": "lightly:Lightly",
    "robust": "torchvision:Robust",
    "efficientnet-pytorch": "efficientnet:EfficientNetPytorch",
    "timm": "timm:Timm",
}
OTHER_FILES = {  # not of torch; a guess looks at torch's only
    "haiku": "haiku:Haiku",
    "simclr-tf": "simclr_tf:SimclrTf",
}
