"""``mmcv.ops`` without a compiler: the operators of ``mmcv._ext`` on torchvision and plain PyTorch.

``mmcv-lite`` ships every Python file of ``mmcv.ops`` but not the compiled module ``mmcv._ext`` behind them, so importing mmdet or the
segmentors of mmseg fails. After :func:`install` they import and run::

    import sslrob_mmcv

    sslrob_mmcv.install()
    import mmdet.apis

A compiled mmcv, where there is one, is used instead. Operators without an implementation here raise ``NotImplementedError`` when called.
:mod:`sslrob_mmcv.checkpoint` reads OpenMMLab checkpoint files without executing anything they contain.
"""

from sslrob_mmcv.finder import install

__all__ = ["install"]
