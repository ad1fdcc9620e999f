"""OpenMMLab: MMSelfSup 1.x and MMPreTrain."""

from __future__ import annotations

from sslrob_backbones.layouts.classes import NUMPY_ARRAYS, NUMPY_SCALARS
from sslrob_backbones.layouts.placed import RESNET, VIT, Place, Placed


class OpenMMLab(Placed):
    """The network in `state_dict`, below `backbone.`; ResNets under torchvision's names, ViTs under its own; neck and target stay.

    The log that MMEngine saves in `message_hub` is made of HistoryBuffers of NumPy arrays; the published files were not rid of it.
    Linear evaluations hold the head of a ResNet in `head.fc`, of a ViT in `head.layers.head`.  Source: open-mmlab/mmselfsup,
    tools/model_converters; open-mmlab/mmpretrain, models/heads; open-mmlab/mmengine, runner/runner.py.
    """

    name = "openmmlab"
    kinds = (RESNET, VIT)
    places = (Place(("state_dict",), "backbone."), Place(("state_dict",)))
    heads = (Place(("state_dict",), "head.fc."), Place(("state_dict",), "head.layers.head."))
    renames = (
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^layers\.(\d+)\.ln([12])\.", r"blocks.\1.norm\2."),
        (r"^layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
        (r"^layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
        (r"^layers\.(\d+)\.attn\.", r"blocks.\1.attn."),
        (r"^ln1\.", "norm."),
    )
    allowed = ("mmengine.logging.history_buffer.HistoryBuffer", *NUMPY_ARRAYS, *NUMPY_SCALARS)
