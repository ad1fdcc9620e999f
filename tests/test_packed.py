"""Weights in 8 bits."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sslrob import weights
from sslrob.errors import SslrobError
from sslrob.packed import SCALE, STEPS, pack, unpack


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "kernel": torch.randn(6, 4, 3, 3, generator=generator) * torch.logspace(-3, 2, 6).view(-1, 1, 1, 1),
        "dead": torch.zeros(2, 5),
        "bias": torch.randn(6, generator=generator),
        "count": torch.tensor(7),
    }


def test_an_unpacked_number_is_within_half_a_step_of_its_row_and_vectors_are_exact() -> None:
    before = state()
    after = unpack(pack(before))
    assert after.keys() == before.keys()
    step = before["kernel"].flatten(1).abs().amax(1) / STEPS
    assert ((after["kernel"] - before["kernel"]).abs().flatten(1).amax(1) <= step / 2 * (1 + 1e-5)).all()
    assert torch.equal(after["dead"], before["dead"])
    assert torch.equal(after["bias"], before["bias"])
    assert after["count"] == 7


def test_packing_again_changes_nothing() -> None:
    once = unpack(pack(state()))
    twice = unpack(pack(once))
    torch.testing.assert_close(twice["kernel"], once["kernel"], rtol=1e-6, atol=0)


def test_what_was_not_packed_stays() -> None:
    before = state()
    assert all(torch.equal(unpack(before)[name], before[name]) for name in before)


def test_a_packed_file_is_read_and_is_about_a_fourth(tmp_path: Path) -> None:
    whole = {"kernel": torch.randn(64, 32, 3, 3, generator=torch.Generator().manual_seed(1))}
    save_file(whole, tmp_path / "whole.safetensors")
    save_file(pack(whole), tmp_path / "packed.safetensors")
    assert torch.equal(weights.load(tmp_path / "packed.safetensors")["kernel"], unpack(pack(whole))["kernel"])
    assert (tmp_path / "packed.safetensors").stat().st_size < 0.27 * (tmp_path / "whole.safetensors").stat().st_size


def test_scales_that_fit_nothing_are_told(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    save_file({**pack(state()), "kernel" + SCALE: torch.ones(5)}, path)
    with pytest.raises(SslrobError, match="kernel::scale"):
        weights.load(path)
