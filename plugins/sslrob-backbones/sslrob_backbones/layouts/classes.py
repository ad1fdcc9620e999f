"""What training scripts leave in their checkpoints besides tensors and plain values; each layout allows the fewest that it needs."""

from __future__ import annotations

NAMESPACE = ("argparse.Namespace",)  # the command line: {"args": args}
PATHS = ("pathlib.PosixPath",)  # in that command line, where submitit started the run
NUMPY_SCALARS = (  # learning rates and weight decays of an optimizer, taken from a schedule that is a NumPy array
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",  # since NumPy 2
)
NUMPY_ARRAYS = ("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
