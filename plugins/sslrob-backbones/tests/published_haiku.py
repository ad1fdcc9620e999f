"""A synthetic BYOL checkpoint: the pickle that google-deepmind/deepmind-research byol/utils/checkpointing.py left in August 2020.

`dill.dump(dict(experiment_state, step, rng), protocol=2)`.  The state is a named tuple of haiku's mappings of numpy arrays; names are
those that dm-haiku gives the modules of byol/utils/networks.py, arrays are (height, width, in, out).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import published_pickle as named
from numpy.typing import NDArray
from published_draws import BLOCKS, CLASSES, STEM, Draws

Tree = dict[str, dict[str, NDArray[Any]]]


def byol(
    path: Path, *, depth: int = 14, mapping: str = "FlatMapping", stem: str = "initial_conv_1", net: str = "res_net50"
) -> dict[str, Tree]:
    """Writes the file; returns the online network's parameters and states.

    Args:
        mapping: haiku's class: FlatMapping, or before 3 August 2020 frozendict.
        stem: what the first convolution is called: initial_conv, or initial_conv_1 where another one was made before it and not used.
        net: what haiku calls the class, which is ResNet50 or ResNet200.
    """
    draws = Draws(40)
    networks = {which: _network(draws, depth, f"{net}/~", stem) for which in ("online", "target")}
    held = {f"{which}_{part}": tree for which, (params, state) in networks.items() for part, tree in (("params", params), ("state", state))}
    frozen = {name: _frozen(tree, mapping) for name, tree in held.items()}
    momentum = {
        name: {key: draws.normal(*value.shape).numpy() for key, value in arrays.items()} for name, arrays in held["online_params"].items()
    }
    optimizers = "byol.utils.optimizers"
    steps = [
        named.named_tuple(optimizers, "AddWeightDecayState", {}),
        named.named_tuple(optimizers, "ScaleByLarsState", {"mu": _frozen(momentum, mapping)}),
        named.named_tuple("optax._src.transform", "ScaleState", {}),
    ]
    order = ("online_params", "target_params", "online_state", "target_state")
    fields = {name: frozen[name] for name in order} | {"opt_state": steps}
    content = {
        "experiment_state": named.named_tuple("byol.byol_experiment", "_ByolExperimentState", fields),
        "step": 312500,
        "rng": named.array(np.array([0, 42], dtype=np.uint32)),  # a DeviceArray is pickled as the array in it
    }
    with path.open("wb") as file:
        named.dump(content, file)
    return held


def _frozen(tree: Mapping[str, Mapping[str, NDArray[Any]]], mapping: str) -> named.Made:
    """Mappings in a mapping; jax has sorted their names."""
    kind = named.Name("haiku._src.data_structures", mapping)
    inner = {name: {key: named.array(arrays[key]) for key in sorted(arrays)} for name, arrays in sorted(tree.items())}
    return named.Made(kind, ({name: named.Made(kind, (arrays,)) for name, arrays in inner.items()},))


def _network(draws: Draws, depth: int, net: str, stem: str) -> tuple[Tree, Tree]:
    params: Tree = {}
    state: Tree = {}

    def conv(name: str, out: int, into: int, size: int) -> None:
        params[name] = {"w": draws.conv(out, into, size).permute(2, 3, 1, 0).contiguous().numpy()}

    def norm(name: str, shape: tuple[int, ...]) -> None:
        params[name] = {"scale": draws.between(0.5, 1.5, *shape).numpy(), "offset": draws.normal(*shape, std=0.2).numpy()}
        for part, seen in (("mean_ema", draws.normal(*shape, std=0.3)), ("var_ema", draws.between(0.5, 1.5, *shape))):
            average = seen.numpy()
            hidden = average * np.float32(0.97)  # of the same average before it is corrected for its start at zero
            state[f"{name}/~/{part}"] = {"counter": np.array(33, dtype=np.int32), "hidden": hidden, "average": average}

    def linear(name: str, out: int, into: int, *, bias: bool) -> None:
        params[name] = {"w": draws.normal(into, out, std=into**-0.5).numpy()} | ({"b": draws.normal(out, std=0.3).numpy()} if bias else {})

    conv(f"{net}/{stem}", STEM, 3, 7)
    norm(f"{net}/initial_batchnorm", (1, 1, 1, STEM))
    into = STEM
    for group, blocks in enumerate(BLOCKS[depth]):
        inner = STEM * 2**group
        for block in range(blocks):
            name = f"{net}/block_group_{group}/~/block_{block}/~"
            if block == 0:
                conv(f"{name}/shortcut_conv", 4 * inner, into, 1)
                norm(f"{name}/shortcut_batchnorm", (1, 1, 1, 4 * inner))
            for i, (out, source, size) in enumerate([(inner, into, 1), (inner, inner, 3), (4 * inner, inner, 1)]):
                conv(f"{name}/conv_{i}", out, source, size)
                norm(f"{name}/batchnorm_{i}", (1, 1, 1, out))
            into = 4 * inner
    for head, source in (("projector", into), ("predictor", 16)):
        linear(f"{head}/linear", 24, source, bias=True)
        norm(f"{head}/batch_norm", (1, 24))
        linear(f"{head}/linear_1", 16, 24, bias=False)
    linear("classifier", CLASSES, into, bias=True)
    return params, state
