"""What lies between images in [0, 1] and a model of OpenMMLab, for the tasks built on mmdet and mmseg.

A backbone here is any module whose output has ``.maps``, a tuple of feature maps, and which has a buffer ``mean`` (3, 1, 1): the colour in [0, 1]
that its own normalisation maps to zero. It takes its place in a config as ``dict(type="sslrob", backbone=backbone)``.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import Registry
from torch import Tensor, nn

from sslrob_mmcv.finder import install

__all__ = ["ConfigError", "Maps", "Prepare", "build", "describe", "models", "read_config", "register"]

NAME = "sslrob"  # of Maps in a registry


class ConfigError(ValueError):
    """A config that is missing, does not run, or asks for something that is not supported; says which and why."""


class Maps(nn.Module):
    """The feature maps of a backbone, in the place where an OpenMMLab config wants a backbone.

    It has no ``init_weights``, so that initialising the model around it leaves the backbone's weights alone.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(images).maps)


class Prepare(nn.Module):
    """What a model takes, from images (n, 3, h, w) RGB in [0, 1]; differentiable, padded at the right and at the bottom.

    Args:
        mean, std: per channel, in the model's order of channels and on its scale.
        fill: (3) or one number, the padding, after normalisation.
        scale: what white is on the model's scale, before normalisation.
        swap: whether the model takes BGR.
        divisor: sides are padded up to a multiple of it.
        size: height and width that sides are padded to, at least.
    """

    mean: Tensor
    std: Tensor
    fill: Tensor

    def __init__(
        self,
        mean: Tensor | float = 0.0,
        std: Tensor | float = 1.0,
        fill: Tensor | float = 0.0,
        *,
        scale: float = 1.0,
        swap: bool = False,
        divisor: int = 1,
        size: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std), ("fill", fill)):
            channels = torch.as_tensor(value).detach().float().reshape(-1, 1, 1).expand(3, 1, 1).clone()
            self.register_buffer(name, channels, persistent=False)
        self.scale, self.swap, self.divisor, self.size = scale, swap, divisor, size

    @classmethod
    def before(cls, backbone: nn.Module, divisor: int) -> Prepare:
        """Padding alone, for a backbone that normalises by itself, with the colour that it maps to zero."""
        return cls(fill=backbone.get_buffer("mean"), divisor=divisor)

    @classmethod
    def like(cls, preprocessor: nn.Module, config: Mapping[str, Any] | None) -> Prepare:
        """What ``preprocessor``, a whole model's ``data_preprocessor``, does with a test image that OpenMMLab read (BGR, 0 to 255).

        Args:
            config: that ``preprocessor`` was built from; once built, it no longer says which way it swaps channels.

        Raises:
            ConfigError: if the channels were swapped the other way, which means images that were read as RGB.
        """
        config = config or {}
        if config.get("rgb_to_bgr"):
            raise ConfigError("a data_preprocessor with rgb_to_bgr=True is not supported: only models of images that were read as BGR are")
        test = config.get("test_cfg") or {}  # where mmseg says how test images are padded; mmdet has one way for all images
        return cls(
            getattr(preprocessor, "mean", 0.0),
            getattr(preprocessor, "std", 1.0),
            float(config.get("pad_value", config.get("pad_val", 0))),
            scale=255.0,
            swap=not config.get("bgr_to_rgb", False),
            divisor=int(config.get("pad_size_divisor") or test.get("size_divisor") or 1),
            size=tuple(test.get("size") or (0, 0)),
        )

    def forward(self, images: Tensor) -> Tensor:
        h, w = images.shape[-2:]
        x = ((images.flip(1) if self.swap else images) * self.scale - self.mean) / self.std
        height, width = (-(-max(side, least) // self.divisor) * self.divisor for side, least in zip((h, w), self.size, strict=True))
        if (height, width) == (h, w):
            return x
        padded = self.fill.to(x).expand(len(x), 3, height, width).clone()
        padded[..., :h, :w] = x
        return padded


def models(package: str) -> Registry:
    """The registry of the models of ``package``, "mmdet" or "mmseg", after importing them; :class:`Maps` is registered in it.

    What the import warns of (old escape sequences, moved operators) is about their own code, and only that is silenced.
    """
    install()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)  # what Python 3.12 calls an old escape sequence
        warnings.simplefilter("ignore", ImportWarning)
        import_module(f"{package}.models")
        registry: Registry = import_module(f"{package}.registry").MODELS
    register(registry)
    return registry


def register(registry: Registry) -> None:
    """Make :class:`Maps` known to a registry of models, under the type "sslrob"; once is enough and twice does no harm."""
    if NAME not in registry.module_dict:
        registry.register_module(name=NAME, module=Maps)


def build(registry: Registry, config: Mapping[str, Any]) -> nn.Module:
    """A model with initial weights, in training mode; its synchronised BatchNorm layers become plain ones.

    mmengine's default scope is process-wide and is set only meanwhile, so mmdet and mmseg live side by side.
    """
    register(registry)
    with redirect_stdout(sys.stderr):  # some models print, and mmengine's log goes to what is stdout when it begins
        logger = MMLogger.get_current_instance()
        level = logger.level
        logger.setLevel("WARNING")  # init_weights() tells of every parameter
        try:
            # the scope: models look up their data_preprocessor in the root registry; the warnings: about their own losses and deprecations
            with registry.switch_scope_and_registry(registry.scope), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                model = registry.build(ConfigDict(config))  # attribute access: test_cfg.mode
                model.init_weights()
                plain: nn.Module = revert_sync_batchnorm(model)
        finally:
            logger.setLevel(level)
    return plain


def read_config(reference: str, package: str) -> ConfigDict:
    """The ``model`` part of a config, without what would load or download weights.

    A config in Python is a program: mmengine runs it, and so does this function. Name only files that you would run.

    Args:
        reference: a file, or the name of a config shipped with ``package``: its path below the package's configs or the last part of it,
            with or without ".py".
        package: "mmdet" or "mmseg".

    Raises:
        ConfigError: if there is no such config, if it fails, or if it describes no model.
    """
    path = _locate(reference, package)
    try:
        content = Config.fromfile(path)
    except Exception as error:  # the config is a program and may raise anything
        raise ConfigError(f"the config '{path}' does not run: {type(error).__name__}: {error}") from error
    model = content.get("model")
    if not isinstance(model, ConfigDict) or "type" not in model:
        raise ConfigError(f"the config '{path}' describes no model: it has no 'model' with a 'type'")
    if content.get("data_preprocessor"):
        model.setdefault("data_preprocessor", content.data_preprocessor)  # as mmengine's Runner does
    _forget_weights(model)
    return model


def describe(reference: str, package: str) -> str:
    """What :func:`read_config` returns as JSON: the same text for the same model, wherever its config lies.

    Code that a config names is told by name only.

    Raises:
        ConfigError: if the config cannot be read, or if it cannot be written as JSON.
    """
    install()  # a config that imports its classes imports mmcv.ops
    config = read_config(reference, package)
    try:
        return json.dumps(config.to_dict(), sort_keys=True, default=_named)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the config '{reference}' cannot be described: {error}") from error


def _named(value: Any) -> str:
    """A class or a function by its name, anything else by what it prints."""
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name else repr(value)


def _locate(reference: str, package: str) -> Path:
    """The file that ``reference`` means."""
    path = Path(reference).expanduser()
    if path.is_file():
        return path
    shipped = _shipped(package)
    wanted = path.parts if path.suffix == ".py" else path.with_name(f"{path.name}.py").parts if path.name else ()
    found = [one for one in sorted(shipped.rglob("*.py")) if wanted and one.relative_to(shipped).parts[-len(wanted) :] == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"'{one.relative_to(shipped).as_posix()}'" for one in found[:5])
        raise ConfigError(f"several configs of {package} are named '{reference}': {names}")
    raise ConfigError(f"no config '{reference}': it is neither a file nor a config shipped with {package}")


def _shipped(package: str) -> Path:
    """The folder of the configs that a package of OpenMMLab brings."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"'{package}' is not installed")
    return Path(spec.origin).parent / ".mim" / "configs"


def _forget_weights(node: Any) -> None:
    """Remove every order to load weights from a config, in place."""
    for child in node if isinstance(node, list | tuple) else node.values() if isinstance(node, Mapping) else ():
        _forget_weights(child)
    if not isinstance(node, dict):
        return
    if "pretrained" in node:
        node["pretrained"] = None
    if _loads(node.get("init_cfg")):
        node["init_cfg"] = None
    elif isinstance(node.get("init_cfg"), list | tuple):
        node["init_cfg"] = [one for one in node["init_cfg"] if not _loads(one)]


def _loads(init: Any) -> bool:
    """Whether an initialisation loads a file."""
    return isinstance(init, Mapping) and str(getattr(init.get("type"), "__name__", init.get("type"))).startswith("Pretrained")
