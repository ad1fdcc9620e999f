"""What ``mmcv.ops`` reports about the build of its extension."""

from __future__ import annotations

__all__ = ["get_compiler_version", "get_compiling_cuda_version"]


def get_compiler_version() -> str:
    """The name of this package, in place of a compiler's."""
    return "none (sslrob-mmcv)"


def get_compiling_cuda_version() -> str:
    """What a build without CUDA reports; the operators run on whatever device torch and torchvision support."""
    return "not available"
