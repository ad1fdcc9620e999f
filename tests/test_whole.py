"""Whole victims from the zoo's record to the model: what the core checks before a plugin is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sslrob.errors import SslrobError
from sslrob.execute import load_victim
from sslrob.whole import fill, require_classes
from sslrob.zoo import Weights


class Asked:
    """A task that keeps what it is asked for."""

    def whole(self, reference: str, *, weights: Weights | None, settings: Mapping[str, Any], classes: Sequence[str]) -> nn.Module:
        self.asked = (reference, weights, settings, classes)
        return nn.Identity()


def load(own: tuple[str, ...], classes: tuple[str, ...]) -> tuple[Any, ...]:
    record = SimpleNamespace(id="my-fcos", reference="x:y", classes=own, weights=Weights(file=Path("w.pth"), ignore=("ema",)), settings={})
    task = Asked()
    spec: Any = SimpleNamespace(victim=record, dataset=SimpleNamespace(classes=()))
    data: Any = SimpleNamespace(classes=classes)
    load_victim(spec, task, data)  # type: ignore[arg-type]
    return task.asked


def test_a_plugin_gets_the_whole_entry_and_the_data_sets_classes() -> None:
    assert load((), ("cat", "dog")) == ("x:y", Weights(file=Path("w.pth"), ignore=("ema",)), {}, ("cat", "dog"))


def test_the_zoo_s_classes_must_be_the_data_sets() -> None:
    assert load(("Cat", "dog"), ("cat", "dog"))
    with pytest.raises(SslrobError, match="class 0 of 'my-fcos' is 'dog', but 'cat' in the data set") as caught:
        load(("dog", "cat"), ("cat", "dog"))
    assert "another order" in caught.value.note
    with pytest.raises(SslrobError, match="'my-fcos' has 2 classes, but the data set has 3"):
        load(("dog", "cat"), ("cat", "dog", "cow"))


def test_names_without_letters_are_told_apart() -> None:
    require_classes("it", ("+", "-"), ("+", "-"))
    with pytest.raises(SslrobError, match="class 0"):
        require_classes("it", ("+", "-"), ("-", "+"))


def test_counters_may_be_missing_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"anything")
    model, state = nn.BatchNorm1d(2), nn.BatchNorm1d(2).state_dict()
    del state["num_batches_tracked"]
    state["weight"] = torch.tensor([3.0, 4.0])
    fill(model, Weights(file=path), what="it", classes=(), reader=lambda _: (state, ()))
    assert model.weight.tolist() == [3.0, 4.0]
    with pytest.raises(SslrobError, match="1 missing: bias"):
        fill(model, Weights(file=path, ignore=("bias",)), what="it", classes=(), reader=lambda _: (state, ()))
