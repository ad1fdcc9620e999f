"""BYOL's pickles: what a real one holds, and what of it is refused."""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import published_pickle as named
import pytest
import torch
from published_pickle import Made, Name
from sslrob_backbones import haiku
from sslrob_backbones.layouts.haiku import Haiku
from sslrob_backbones.pickle_machine import Span
from sslrob_backbones.resnet import ResNet

from sslrob import archive, weights
from sslrob.errors import RunFailed, SslrobError

SPECIMENS = Path(__file__).parent / "specimens"
BYOL = SPECIMENS / "byol.pkl"


def test_a_specimen_gives_what_its_own_network_gives() -> None:
    layout, expected = Haiku(), np.load(SPECIMENS / "byol.npz")
    found = layout.read(BYOL)
    net = ResNet(depth=14, width=1 / 32, padding="same", mean=0.0, std=1.0).eval()
    weights.apply(net, layout.backbone(found), what="byol")
    images = torch.from_numpy(expected["images"]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        embedding = net(images).pooled
    torch.testing.assert_close(embedding, torch.from_numpy(expected["embedding"]), atol=1e-5, rtol=0)
    head = layout.head(found)
    torch.testing.assert_close(
        embedding @ head["head.weight"].T + head["head.bias"], torch.from_numpy(expected["logits"]), atol=1e-5, rtol=0
    )


def test_the_specimen_is_dills() -> None:
    with BYOL.open("rb") as file:
        names = {argument for opcode, argument, _ in pickletools.genops(file) if opcode.name == "GLOBAL"}
    assert {"dill._dill _get_attr", "dill._dill _create_namedtuple", "haiku._src.data_structures FlatMapping"} <= names
    assert "jax._src.array _reconstruct_array" in names


def test_arrays_stay_in_the_file_until_they_are_asked_for() -> None:
    found = haiku.read(BYOL)
    array = found["experiment_state"].fields["online_params"]["res_net50/~/initial_conv"]["w"]
    assert isinstance(array.values, Span)
    assert array.shape == (7, 7, 3, 2)
    assert array.numpy().shape == (7, 7, 3, 2)
    assert found["step"] == 1000
    assert found["rng"].numpy().tolist() == [1, 2]


@pytest.mark.parametrize("dill", ["dill._dill", "dill.dill"])
def test_both_names_of_dills_module(tmp_path: Path, dill: str) -> None:
    pair = Made(Made(Name(dill, "_create_namedtuple"), ("Pair", ("a", "b"), "somewhere")), (1, 2), new=True)
    with (tmp_path / "pair.pkl").open("wb") as file:
        named.dump(pair, file)
    assert haiku.read(tmp_path / "pair.pkl") == haiku.Record({"a": 1, "b": 2})


# ---- what would execute code

TOUCH = "touch {}"


def through_dill(module: str, name: str) -> Made:
    return Made(Name("dill._dill", "_get_attr"), (Made(Name("dill._dill", "_import_module"), (module,)), name))


@pytest.mark.parametrize(
    ("evil", "said"),
    [
        (lambda do: Made(Name("posix", "system"), (do,)), "posix.system"),
        (lambda do: Made(Name("subprocess", "Popen"), (do,), new=True), "subprocess.Popen"),
        (lambda do: Made(through_dill("os", "system"), (do,)), "os.system"),
        (lambda do: Made(through_dill("numpy.core.multiarray", "fromfile"), (do,)), "numpy.core.multiarray.fromfile"),
        (lambda do: Made(Name("dill._dill", "_import_module"), ("antigravity",)), "import antigravity"),
        (lambda do: Made(Name("dill._dill", "_create_function"), (do,)), "dill._dill._create_function"),
        (lambda do: Made(Name("builtins", "eval"), (do,)), "builtins.eval"),
        (lambda do: Made(Name("numpy", "load"), (do,)), "numpy.load"),
        (lambda do: Name("posix", "system"), "posix.system"),
    ],
)
def test_what_would_call_anything_else_is_refused_by_name(tmp_path: Path, evil: Callable[[str], Any], said: str) -> None:
    path, trace = tmp_path / "evil.pkl", tmp_path / "trace"
    with path.open("wb") as file:
        named.dump({"experiment_state": {"online_params": {}, "online_state": {}}, "evil": evil(TOUCH.format(trace))}, file)
    with pytest.raises(SslrobError, match=re.escape(f"'{path}' is refused: loading it would call '{said}'")) as caught:
        Haiku().read(path)
    assert "executes nothing" in caught.value.hint
    assert not trace.exists()


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.path)!r}, 'w')",)


@pytest.mark.parametrize("protocol", range(6))
def test_in_each_protocol(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "evil.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps([1, "x" * 999, Touch(trace)], protocol=protocol))
    with pytest.raises(SslrobError, match=r"is refused: loading it would call '(__builtin__|builtins).eval'"):
        haiku.read(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "its pickle uses the opcode BINPERSID"),
        (b"(S'touch x'\niposix\nsystem\n.", "its pickle uses the opcode STRING"),
        (b"(Vtouch x\niposix\nsystem\n.", "would call 'posix.system'"),
        (b"\x80\x02\x82\x01.", "its pickle uses the opcode EXT1"),
        (b"\x80\x05\x97.", "its pickle uses the opcode NEXT_BUFFER"),
    ],
)
def test_other_opcodes_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "evil.pkl").write_bytes(content)
    with pytest.raises(SslrobError, match=re.escape(said)):
        haiku.read(tmp_path / "evil.pkl")


@pytest.mark.parametrize(
    "made",
    [
        Made(Name("numpy", "dtype"), ("O8", False, True)),
        Made(Name("numpy", "dtype"), ("f4",), state=(3, "<", None, ("a", "b"), None, -1, -1, 0)),
        Made(Name("numpy", "ndarray"), ((3,),)),
        Made(Name("numpy.core.multiarray", "_reconstruct"), (Name("numpy", "ndarray"), (0,), b"b"), state=(1, (2,), "f4", False, b"x")),
        Made(Name("_codecs", "encode"), ("a", "rot13")),
        Made(Name("haiku._src.data_structures", "FlatMapping"), (7,)),
        Made(Name("haiku._src.data_structures", "FlatMapping"), ({},), state={"x": 1}),
        Made(Name("jax._src.array", "_reconstruct_array"), (Name("_codecs", "encode"), ("a", "latin1"), (1, (0,), 2, False, b""), {})),
        Made(through_dill("numpy.core.multiarray", "scalar"), ("f4", b"1234")),
        Made(Made(Name("dill._dill", "_create_namedtuple"), ("Pair", ("a", "b"), "m")), (1,), new=True),
    ],
)
def test_known_names_take_only_what_they_are_for(tmp_path: Path, made: Made) -> None:
    with (tmp_path / "odd.pkl").open("wb") as file:
        named.dump(made, file)
    with pytest.raises(SslrobError, match="is not a whole pickle of Haiku parameters"):
        haiku.read(tmp_path / "odd.pkl")


def nested(depth: int) -> bytes:
    """Opcodes that remember, as number `depth`, a pair of pairs of pairs: 2^depth nothings in a few bytes for each level."""
    pairs = (b"h%ch%c\x86q%c0" % (level, level, level + 1) for level in range(depth))
    return b")q\x000" + b"".join(pairs)


@pytest.mark.parametrize(
    "use",
    [
        b"}h(Ns.",  # as a key, which would be hashed; the number 40, the deepest, is "("
        b"}(h(Nu.",
        b"(h(Nd.",
        b"h(h(\x93.",  # as a name, which would be written out
        b"cdill._dill\n_import_module\nh(\x85R.",
        b"cdill._dill\n_get_attr\ncdill._dill\n_import_module\nX\x01\x00\x00\x00a\x85Rh(\x86R.",
        b"cdill._dill\n_create_namedtuple\nX\x01\x00\x00\x00ah(\x86Rh(R.",
        b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R(K\x03X\x01\x00\x00\x00<h(NNtb.",
        b"cnumpy\ndtype\nh(\x85R.",
        b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01h(NNtb.",
        b"chaiku._src.data_structures\nFlatMapping\n](h(N\x86ea\x85R.",
    ],
)
def test_a_few_bytes_that_nest_without_end_are_neither_hashed_nor_written_out(tmp_path: Path, use: bytes) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(b"\x80\x04" + nested(40) + use)
    with pytest.raises(SslrobError, match="is not a whole pickle of Haiku parameters") as caught:
        haiku.read(path)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_many_names_of_the_same_values_are_more_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    one = haiku.Array()
    one.build((1, (1, 1, 256, 256), haiku.Dtype("f4"), False, Span(BYOL, 0, 2**18, False)))
    monkeypatch.setattr(archive, "_room", lambda: 2**22)
    names = [f"net/~/block_group_0/~/block_{i}/~/conv_0" for i in range(17)]
    with pytest.raises(RunFailed, match="GiB of tensors"):
        Haiku().backbone({"params": {name: {"w": one} for name in names}, "state": {}})


# ---- what is damaged, or something else


@pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 0.999])
def test_a_truncated_pickle(tmp_path: Path, share: float) -> None:
    whole = BYOL.read_bytes()
    (tmp_path / "cut.pkl").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SslrobError, match="of Haiku parameters") as caught:
        Haiku().read(tmp_path / "cut.pkl")
    assert "get the file again" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>denied</html>", "it is a web page"),
        (b"\x93NUMPY\x01\x00", "it is a single array"),
        (b"hello", "it is a text"),
        (b"hell\0", "whole pickle"),
    ],
)
def test_what_is_no_pickle(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "w.pkl").write_bytes(content)
    with pytest.raises(SslrobError, match=said):
        Haiku().read(tmp_path / "w.pkl")


def test_pickles_of_something_else_say_what_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps({"params": 1, "step": 2}))
    with pytest.raises(
        SslrobError, match=r"expects 'online_params' and 'online_state' in the 'experiment_state' of .*, found params, step"
    ):
        Haiku().read(path)
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(SslrobError, match="found a list"):
        Haiku().read(path)


def array(*shape: int) -> haiku.Array:
    made = haiku.Array()
    made.build((1, shape, haiku.Dtype("f4"), False, bytes(4 * int(np.prod(shape)))))
    return made


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "finds no backbone: expected '…/initial_conv', found nothing"),
        ({"net/linear": {"w": array(2, 2)}}, "does not know what 'net/linear/w' is"),
        ({"net/~/final_batchnorm": {"scale": array(1, 1, 1, 2)}}, "does not know what 'net/~/final_batchnorm/scale' is"),
        ({"net/~/initial_conv": {"w": array(7, 7, 3)}}, r"has shape \(7, 7, 3\), not \(height, width, in, out\)"),
        ({"net/~/initial_batchnorm": {"scale": array(2, 1, 1, 2)}}, r"has shape \(2, 1, 1, 2\), not \(1, 1, 1, channels\)"),
        ({"a/~/initial_conv": {"w": array(7, 7, 3, 2)}, "b/~/initial_conv": {"w": array(7, 7, 3, 2)}}, "is the second of its kind"),
        ({"net/~/initial_conv": {"w": 3}}, "'net/~/initial_conv/w' is a int, not an array"),
    ],
)
def test_networks_that_are_no_resnet(params: Any, said: str) -> None:
    with pytest.raises(SslrobError, match=said):
        Haiku().backbone({"params": params, "state": {}})


def test_values_that_are_cut_off_are_told() -> None:
    short = array(7, 7, 3, 2)
    short.values = b"1234"
    with pytest.raises(SslrobError, match=r"the values of 'n/~/initial_conv/w' are not whole: 4 bytes for an array of float32"):
        Haiku().backbone({"params": {"n/~/initial_conv": {"w": short}}, "state": {}})


def test_a_network_without_a_classifier() -> None:
    with pytest.raises(SslrobError, match="finds no linear head") as caught:
        Haiku().head({"params": {"classifier": {"w": array(2, 2)}}, "state": {}})
    assert "sslrob train" in caught.value.hint


def test_arrays_in_fortrans_order_and_of_the_other_byte_order() -> None:
    values = np.arange(6, dtype=">f4").reshape(2, 3)
    made, dtype = haiku.Array(), haiku.Dtype("f4")
    dtype.build((3, ">", None, None, None, -1, -1, 0))
    made.build((1, (2, 3), dtype, True, values.tobytes(order="F")))
    assert made.numpy().dtype.isnative
    np.testing.assert_array_equal(made.numpy(), values)
