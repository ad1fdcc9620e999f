"""An import hook that serves ``mmcv._ext`` from this package where no compiled one exists."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

EXTENSION = "mmcv._ext"
"""The module that is served."""

OPERATOR_MODULES = ("boxes", "build_info", "deform_attn", "deform_conv", "focal_loss", "nms", "roi")
"""The modules of this package whose public functions become attributes of ``mmcv._ext``."""


def missing_operator(name: str) -> Callable[..., NoReturn]:
    """A function that says that operator ``name`` is not implemented here and what to install instead."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"operator '{name}' of mmcv.ops has no implementation in sslrob-mmcv; it needs a compiled mmcv in place of mmcv-lite: "
            "'pip uninstall mmcv-lite', then 'pip install --no-build-isolation mmcv==2.1.0', with a C++ compiler and torch below 2.14"
        )

    refuse.__name__ = name
    return refuse


class ExtensionModule(ModuleType):
    """Stands in for ``mmcv._ext``; every public name exists, because ``mmcv.ops`` looks all of them up when it is imported."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        return missing_operator(name)


class ExtensionFinder(MetaPathFinder, Loader):
    """Finds and loads :data:`EXTENSION`; nothing else."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, origin="sslrob_mmcv") if fullname == EXTENSION else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ExtensionModule(spec.name, __doc__)

    def exec_module(self, module: ModuleType) -> None:
        for source in OPERATOR_MODULES:
            operators = importlib.import_module(f"sslrob_mmcv.{source}")
            vars(module).update({name: getattr(operators, name) for name in operators.__all__})


def install() -> None:
    """Serve ``mmcv._ext`` from this package unless a compiled one can be imported; calling it again changes nothing.

    Call it before the first import of ``mmcv.ops``, ``mmdet`` or ``mmseg``. The finder goes to the end of ``sys.meta_path``, so whatever
    Python finds by itself comes first.
    """
    if not any(isinstance(finder, ExtensionFinder) for finder in sys.meta_path):
        sys.meta_path.append(ExtensionFinder())
