"""A victim made ready for a search: a copy that sees the same, up to rounding, in less time.  The victim itself is left alone, and judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sslrob.errors import SslrobError
from sslrob.evaluate import at_rest
from sslrob.precision import Precision, lower
from sslrob.task import Victim

CLOSE = 1e-4  # of the largest value of an output: rounding stays below a tenth of it, a fold that is wrong does not
LIGHT = 250  # multiplications for each value: the embedded ResNets have 63, ResNet-50 188; ResNet-18 has 389, and gains nothing
CONVOLUTIONS: Mapping[Any, type[nn.Module]] = {torch.conv1d: nn.Conv1d, torch.conv2d: nn.Conv2d, torch.conv3d: nn.Conv3d}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
Pair = tuple[nn.Module, nn.Module]


class Prepared(NamedTuple):
    """Whom to search.

    Attributes:
        victim: a copy, or the victim itself.
        told: what was done, or why nothing was, for the record of a run.
    """

    victim: Victim
    told: str


def prepared(victim: Victim, like: Tensor, precision: Precision = "float32") -> Prepared:
    """A frozen copy whose batch norms are folded into the convolutions before them and, on a CPU, whose images lie channels last.

    The victim itself, where there is nothing to gain, where it cannot be copied, or where the copy does not see the same in noise, in `like`
    or in what is bright: a victim that draws at random does not.  The victim's tensors and torch's random numbers are left as they were.

    Args:
        like: an image (3, h, w) of the size and on the device that it will see.
        precision: in which the backbone of the copy multiplies; the rest, and what it answers, is float32 as ever.

    Raises:
        SslrobError: a lower precision is asked for, and there is no copy, or no backbone in it.
    """
    devices = [like.device] if like.is_cuda else []
    noise = torch.rand(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    looks = [image[None] for image in (noise, like, (1 + noise) / 2)]
    try:
        with torch.no_grad(), at_rest(victim), torch.random.fork_rng(devices):
            found = _prepared(victim, looks, anyway=precision != "float32")
    except Exception as error:  # anybody's module may raise anything here, and can still be searched as it is
        found = Prepared(victim, f"the victim itself: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
    if precision == "float32":
        return found
    if found.victim is victim or found.victim.backbone is None:
        why = found.told if found.victim is victim else "it has no backbone of sslrob's"
        raise SslrobError(f"there is no copy of the victim to search in {precision}: {why}", hint="leave --precision out")
    lower(found.victim.backbone, precision)
    return Prepared(found.victim, f"{found.told}, {precision}")


def _prepared(victim: Victim, looks: Sequence[Tensor], *, anyway: bool) -> Prepared:
    if any(module.training for module in victim.modules()):
        return Prepared(victim, "the victim itself: a part of it stays in train mode")
    watch = _Watch(victim)
    seen = [_seen(victim, image, watch if image is looks[0] else None) for image in looks]
    pairs, folding = watch.pairs(), sum(isinstance(module, NORMS) for module in victim.modules())
    channels_last = not looks[0].is_cuda and watch.light
    if not pairs and not channels_last and not anyway:
        return Prepared(victim, "the victim itself: nothing to fold")
    names = {module: name for name, module in victim.named_modules()}
    copy = deepcopy(victim).requires_grad_(False)
    for convolution, norm in [(copy.get_submodule(names[a]), copy.get_submodule(names[b])) for a, b in pairs]:
        _fold(convolution, norm)
        _replace(copy, norm, nn.Identity())
    if channels_last:
        copy.to(memory_format=torch.channels_last)
    for parameter in copy.parameters():
        parameter.grad = None
    if (far := max(_difference(wanted, _seen(copy, image)) for wanted, image in zip(seen, looks, strict=True))) > CLOSE:
        return Prepared(victim, f"the victim itself: a copy of it differs by {far:.1g}")
    layout = ", channels last" if channels_last else ""
    return Prepared(copy, f"a copy: {len(pairs)} of {folding} batch norms folded{layout}")


class _Watch(TorchFunctionMode):
    """Sees which batch norm takes exactly what a convolution gave, and whether anything else takes it too."""

    def __init__(self, victim: nn.Module) -> None:
        super().__init__()
        plain = [m for m in victim.modules() if type(m) in CONVOLUTIONS.values() and not _hooked(m)]
        self._convolutions = {id(m.weight): m for m in plain}
        self._shared = len(self._convolutions) < len(plain)  # one weight for two: which of them gave an output is not known
        norms = [m for m in victim.modules() if type(m) in NORMS and not _hooked(m)]
        self._norms = {id(m.running_mean): m for m in norms if m.running_mean is not None}
        self._given: dict[int, tuple[Tensor, int, nn.Module]] = {}  # by what a convolution gave: kept alive, or its id would come again
        self._taken: dict[nn.Module, list[nn.Module | None]] = {}  # by convolution: who took what it gave; None: neither a norm, nor alone
        self._sources: dict[nn.Module, set[nn.Module | None]] = {}  # by norm: whose outputs it took
        self._looks: list[tuple[int, int]] = []  # for each 2d convolution: its multiplications, and the values that it takes and gives

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = [self._given[id(t)] for t in _tensors((args, kwargs)) if id(t) in self._given]
        before = [version for _, version, _ in taken]
        now = [tensor._version for tensor, _, _ in taken]
        found = func(*args, **(kwargs or {}))
        norm = self._norms.get(id(args[1])) if func is F.batch_norm and len(args) > 1 else None
        if next(_tensors(found), None) is not None:  # who only asks for a shape takes nothing
            for _, _, source in taken:
                self._taken[source].append(norm if before == now else None)
        if norm is not None:
            self._sources.setdefault(norm, set()).update([source for _, _, source in taken] or [None])
        if func is torch.conv2d:
            self._looks.append((args[1].numel() * found.shape[0] * found.shape[2:].numel(), args[0].numel() + found.numel()))
        if func in CONVOLUTIONS and (own := self._convolutions.get(id(args[1]))) is not None:
            self._given[id(found)] = found, found._version, own
            self._taken.setdefault(own, [])
        return found

    @property
    def light(self) -> bool:
        """Whether there are convolutions, and not only the one that cuts a ViT's patches, that move values more than multiply them."""
        multiplied, moved = (sum(amounts) for amounts in zip(*self._looks, strict=True)) if self._looks else (0, 0)
        return len(self._looks) > 1 and multiplied < LIGHT * moved

    def pairs(self) -> list[Pair]:
        """Convolutions all of whose outputs went to one batch norm alone, which took no others."""
        calls = [own for _, _, own in self._given.values()]
        return [
            (own, norm)
            for own, takers in self._taken.items()
            if not self._shared and len({*takers}) == 1 and len(takers) == calls.count(own)
            if (norm := takers[0]) is not None and self._sources[norm] == {own}
        ]


def _seen(victim: Victim, images: Tensor, watch: _Watch | None = None) -> list[Tensor]:
    """All that comes out of the victim, and of the backbone inside, which objectives on embeddings look at."""
    inside: list[Any] = []
    body = victim.backbone
    handle = body.register_forward_hook(lambda module, images, features: inside.append(features)) if body is not None else None
    try:
        if watch is None:
            outputs = victim(images)
        else:
            with watch:
                outputs = victim(images)
    finally:
        if handle is not None:
            handle.remove()
    return [tensor for tensor in _tensors((outputs, inside)) if tensor.is_floating_point()]


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those that it is made of."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _tensors(list(vars(value).values()))


def _difference(wanted: list[Tensor], found: list[Tensor]) -> float:
    """The largest of all, as a share of the largest value of that output; infinite where there is nothing to compare."""
    if not wanted or [t.shape for t in wanted] != [t.shape for t in found]:
        return float("inf")
    shares = [float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in zip(wanted, found, strict=True) if a.numel()]
    return max(share if share == share else float("inf") for share in shares)


def _fold(convolution: Any, norm: Any) -> None:
    """Make a convolution do what the batch norm after it does, which has to go."""
    scale = (norm.running_var.double() + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.double())
    before = -norm.running_mean.double() if convolution.bias is None else convolution.bias.double() - norm.running_mean.double()
    bias = before * scale + (0 if norm.bias is None else norm.bias.double())
    weight = convolution.weight.double() * scale.view(-1, *[1] * (convolution.weight.ndim - 1))
    like = convolution.weight
    convolution.weight, convolution.bias = (nn.Parameter(tensor.to(like), requires_grad=False) for tensor in (weight, bias))


def _replace(whole: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Wherever it stands: a module may have several names."""
    for parent in list(whole.modules()):
        for name, child in list(parent._modules.items()):  # named_children() would leave out the second name
            if child is old:
                parent._modules[name] = new


def _hooked(module: nn.Module) -> bool:
    """Whether somebody looks at what goes in or comes out, or at its gradients, or makes its weights anew at every call."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or hasattr(module, "parametrizations")
