"""Every test here runs on the operators of this package, on one thread."""

import warnings

import sslrob_mmcv
import torch

sslrob_mmcv.install()
torch.set_num_threads(1)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what mmcv says of itself while it is imported
    import mmcv.ops  # noqa: F401
