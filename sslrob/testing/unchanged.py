"""Guards around a component's code: what it must leave as it found it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def generators_unused(where: str) -> Iterator[None]:
    """Raises:
    AssertionError: the code inside drew from a global random generator.
    """
    before = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()
    yield
    same = torch.equal(torch.get_rng_state(), before[0]), repr(np.random.get_state()) == before[1], random.getstate() == before[2]
    guilty = [name for name, unused in zip(("torch", "numpy", "random"), same, strict=True) if not unused]
    assert not guilty, f"{where}: drew from the global generator of {' and '.join(guilty)}; draw from `streams` alone"


@contextmanager
def module_unchanged(module: nn.Module, where: str) -> Iterator[None]:
    """Raises:
    AssertionError: the code inside changed a parameter, a buffer, a mode, or left a gradient.
    """
    state = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    wanted = [parameter.requires_grad for parameter in module.parameters()]
    yield
    after = module.state_dict()
    moved = [name for name in state if name not in after or not torch.equal(state[name], after[name])]
    assert not moved, f"{where}: changed {moved[0]!r}; leave parameters and buffers as they are"
    assert modes == [part.training for part in module.modules()], f"{where}: changed train or eval mode; give each module its own back"
    same = wanted == [parameter.requires_grad for parameter in module.parameters()]
    assert same, f"{where}: changed requires_grad of a parameter; leave it as it is"
    left = [name for name, parameter in module.named_parameters() if parameter.grad is not None]
    assert not left, f"{where}: left a gradient on {left[:1]}; use torch.autograd.grad(loss, images) instead of backward()"
