"""SimCLR's checkpoints of TensorFlow: what a real one holds, and what is damaged."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sslrob_backbones import sstable, tensorflow
from sslrob_backbones.crc32c import LANES, crc32c, masked
from sslrob_backbones.layouts.simclr_tf import HEAD, SimclrTf
from sslrob_backbones.resnet import ResNet

from sslrob import archive, weights
from sslrob.errors import RunFailed, SslrobError

SPECIMENS = Path(__file__).parent / "specimens"
SIMCLR = SPECIMENS / "simclr.zip"
PREFIX = "ResNet50_1x/model.ckpt-225206"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The specimen, unpacked."""
    with zipfile.ZipFile(SIMCLR) as packed:
        packed.extractall(tmp_path)
    return tmp_path / "ResNet50_1x"


def test_a_specimen_gives_what_its_own_network_gives() -> None:
    layout, expected = SimclrTf(), np.load(SPECIMENS / "simclr.npz")
    found = layout.read(SIMCLR)
    net = ResNet(depth=14, width=1 / 32, padding="same-pool", mean=0.0, std=1.0).eval()
    weights.apply(net, layout.backbone(found), what="simclr")
    images = torch.from_numpy(expected["images"]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        embedding = net(images).pooled
    torch.testing.assert_close(embedding, torch.from_numpy(expected["embedding"]), atol=1e-5, rtol=1e-5)
    head = layout.head(found)
    assert head["head.bias"].abs().min() > 0  # tonylins/simclr-converter loses it
    torch.testing.assert_close(
        embedding @ head["head.weight"].T + head["head.bias"], torch.from_numpy(expected["logits"]), atol=1e-5, rtol=1e-5
    )


def test_archive_folder_and_index_are_the_same(folder: Path) -> None:
    first, *others = (tensorflow.read(path) for path in (SIMCLR, folder, next(folder.glob("*.index"))))
    assert "global_step" in first
    assert first["global_step"].shape == ()
    for other in others:
        assert other.keys() == first.keys()
        assert all(np.array_equal(other[name], first[name]) for name in first)


def test_only_what_is_wanted_is_read(folder: Path) -> None:
    found = tensorflow.read(folder, keep=lambda name: name == HEAD["bias"])
    assert [(name, array.shape) for name, array in found.items()] == [(HEAD["bias"], (5,))]


# ---- what is damaged


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_byte_that_is_another_is_found(folder: Path, suffix: str) -> None:
    path = next(folder.glob(f"*.{suffix}"))
    content = bytearray(path.read_bytes())
    for place in (0, len(content) // 2, len(content) - (60 if suffix == "index" else 1)):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(SslrobError, match=r"is not a whole checkpoint of TensorFlow: .*not what was written: its checksum is another"):
            tensorflow.read(folder)


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file(folder: Path, suffix: str, share: float) -> None:
    path = next(folder.glob(f"*.{suffix}"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SslrobError, match="is not a whole checkpoint of TensorFlow: ValueError"):
        tensorflow.read(folder)


def test_a_file_that_is_missing(folder: Path) -> None:
    next(folder.glob("*.data*")).unlink()
    with pytest.raises(SslrobError, match=r"is not a whole checkpoint of TensorFlow: .*No such file"):
        tensorflow.read(folder)


def test_one_index_is_needed(folder: Path) -> None:
    index = next(folder.glob("*.index"))
    shutil.copy(index, folder / "model.ckpt-9.index")
    with pytest.raises(SslrobError, match=r"should hold one .index, and holds model.ckpt-225206, model.ckpt-9"):
        tensorflow.read(folder)
    assert tensorflow.read(index, keep=lambda name: name == "global_step")
    for path in folder.glob("*.index"):
        path.unlink()
    with pytest.raises(SslrobError, match=r"should hold one .index, and holds checkpoint, model.ckpt-225206.data"):
        tensorflow.read(folder)


def test_the_hub_module_in_simclrs_archives_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ResNet50_1x.zip"
    shutil.copy(SIMCLR, path)
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("ResNet50_1x/hub/variables/variables.index", b"another's")
        made.writestr("__MACOSX/ResNet50_1x/._model.ckpt-225206.index", b"nobody's")
    assert SimclrTf().read(path).keys() == SimclrTf().read(SIMCLR).keys()


def test_archives_are_looked_at_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("../model.index", b"x")
    with pytest.raises(SslrobError, match=r"its member '../model.index' would be written outside"):
        tensorflow.read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("model.index", bytes(2**25))
    with pytest.raises(SslrobError, match="as in a zip bomb"):
        tensorflow.read(path)
    monkeypatch.setattr(archive, "_room", lambda: 10**4)
    with pytest.raises(RunFailed, match="GiB of memory are free"):
        tensorflow.read(SIMCLR)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("w.zip", b"<html>sign in</html>", "it is a web page: the download was refused"),
        ("w.bin", b"some\0bytes", "neither an .index nor a zip archive"),
        ("w.index", b"some\0bytes", "its end is not that of a table; it has 10 bytes"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SslrobError, match=said):
        tensorflow.read(tmp_path / name)


def test_a_path_with_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SslrobError, match="no checkpoint of TensorFlow at"):
        tensorflow.read(tmp_path / "absent.zip")


# ---- networks that are another's


def test_selective_kernels_and_missing_norms_are_told() -> None:
    found = dict(SimclrTf().read(SIMCLR))
    stem = {**found, "base_model/conv2d/kernel": np.zeros((3, 3, 3, 2), "f4")}
    with pytest.raises(
        SslrobError, match=r"expected one convolution of size 7, then 4 groups of bottlenecks .*, found 17 convolutions, of sizes 3, 1"
    ):
        SimclrTf().backbone(stem)
    fewer = {name: array for name, array in found.items() if not name.startswith("base_model/conv2d_16/")}
    with pytest.raises(SslrobError, match="found 16 convolutions"):
        SimclrTf().backbone(fewer)
    del found["base_model/batch_normalization_3/gamma"]
    with pytest.raises(SslrobError, match="expected 17 batch norms, one for each convolution, found 16 whole ones"):
        SimclrTf().backbone(found)
    with pytest.raises(SslrobError, match="found no convolution"):
        SimclrTf().backbone({})
    with pytest.raises(SslrobError, match="finds no linear head"):
        SimclrTf().head({})


# ---- the format


def test_checksums() -> None:
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert masked(b"123456789") != crc32c(b"123456789")


@pytest.mark.parametrize("size", [2 * LANES - 1, 2 * LANES, 2 * LANES + 1, 5 * LANES, 40001])
def test_checksums_of_long_texts_are_those_of_their_bytes(size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    state = 0xFFFFFFFF
    for byte in content:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    assert crc32c(content) == state ^ 0xFFFFFFFF


def table(pairs: dict[bytes, bytes], compression: int = 0) -> bytes:
    """A table of one block, its texts as literals where it is compressed."""

    def number(value: int) -> bytes:
        return number_of(value)

    def block(entries: dict[bytes, bytes]) -> bytes:
        content, before = b"", b""
        for key, value in entries.items():
            shared = next((i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), min(len(before), len(key)))
            content += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
            before = key
        return content + bytes(4) + (1).to_bytes(4, "little")

    def stored(content: bytes) -> bytes:
        if compression:
            content = number(len(content)) + bytes([61 << 2]) + (len(content) - 1).to_bytes(2, "little") + content
        whole = content + bytes([compression])
        return whole + masked(whole).to_bytes(4, "little")

    data = stored(block(pairs))
    index = stored(block({max(pairs): number(0) + number(len(data) - 5)}))
    footer = number(0) + number(0) + number(len(data)) + number(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + sstable.MAGIC.to_bytes(8, "little")


def number_of(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number_of(value >> 7)


@pytest.mark.parametrize("compression", [0, 1])
def test_tables_with_and_without_snappy(compression: int) -> None:
    pairs = {b"": b"header", b"base_model/a": b"1" * 300, b"base_model/b": b"", b"head": b"2"}
    assert dict(sstable.entries(table(pairs, compression))) == pairs


def test_compressions_that_are_not_known() -> None:
    with pytest.raises(ValueError, match="compression 7 is not known"):
        list(sstable.entries(table({b"a": b"b"}, 7)))


def test_long_keys_are_refused() -> None:
    key = b"a" * sstable.LONGEST
    assert dict(sstable.entries(table({key: b"1"}))) == {key: b"1"}
    with pytest.raises(ValueError, match="a key has 4097 bytes"):
        list(sstable.entries(table({key: b"1", key + b"a": b""})))


def test_a_block_is_read_once() -> None:
    data = b"\0\1\0a" + bytes(4) + (1).to_bytes(4, "little") + b"\0"
    index = b"\0\1\2a\0" + number_of(len(data) - 1) + b"\0\1\2b\0" + number_of(len(data) - 1) + bytes(4) + (1).to_bytes(4, "little") + b"\0"
    blocks = [block + masked(block).to_bytes(4, "little") for block in (data, index)]
    footer = bytes(2) + number_of(len(blocks[0])) + number_of(len(index) - 1)
    with pytest.raises(ValueError, match="the block at 0 would begin before the one before it ends"):
        list(sstable.entries(b"".join(blocks) + footer.ljust(40, b"\0") + sstable.MAGIC.to_bytes(8, "little")))


def test_more_entries_than_any_checkpoint_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow, "MOST", 2)
    (tmp_path / "m.index").write_bytes(table({b"": b"\x08\x01", b"a": b"", b"b": b"", b"c": b""}))
    with pytest.raises(SslrobError, match="its index has more than 2 entries"):
        tensorflow.read(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        b"\x22\x01a",  # a text for the offset
        b"\x1a\x01a",  # for the number of the file
        b"\x10\x07",  # a number for the shape
        b"\x12\x02\x10\x07",  # for a size in it
        b"\x20" + b"\xff" * 9 + b"\x01",  # an offset that no file has
        b"\x12\x04\x12\x02\x08\x01" * 33,
    ],
)
def test_fields_of_another_kind_are_damage(tmp_path: Path, entry: bytes) -> None:
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(8))
    good = bytes([0x08, 1, 0x12, 4, 0x12, 2, 0x08, 2, 0x28, 8])
    (tmp_path / "m.index").write_bytes(table({b"": b"\x08\x01", b"v": good, b"w": good + entry}))
    with pytest.raises(SslrobError, match="is not a whole checkpoint of TensorFlow"):
        tensorflow.read(tmp_path)


def test_snappy() -> None:
    assert sstable._unsnap(b"\x0a\x10hello\x05\x05") == b"hellohello"  # a copy with one byte of distance
    assert sstable._unsnap(b"\x08\x04ab\x16\x02\x00") == b"abababab"  # with two, of what it is writing itself
    for broken, said in (
        (b"\x0a\x10hello\x05\x06", "a copy of what is not there"),
        (b"\x0b\x10hello\x05\x05", "unpacks to 10 bytes, not 11"),
        (b"\xff\xff\xff\x7f\x00a", "would unpack 6 bytes to 268435455"),
        (b"\xff" * 12, "a number has no end"),
    ):
        with pytest.raises(ValueError, match=said):
            sstable._unsnap(broken)


def test_tensors_that_are_no_plain_numbers_or_do_not_fit(tmp_path: Path) -> None:
    def message(dtype: int, size: int, more: bytes = b"") -> bytes:
        return bytes([0x08, dtype, 0x12, 4, 0x12, 2, 0x08, 2, 0x28, size]) + more  # dtype, shape (2,), size

    header = bytes([0x08, 1])
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(8))
    for entry, said in (
        (message(7, 8), "'w' is of type 7, not of plain numbers"),
        (message(1, 8, bytes([0x3A, 0])), "'w' is in slices"),
        (message(1, 9), r"'w' has shape \(2,\) of float32 and 9 bytes"),
        (message(1, 8), "'w' is not what was written"),
        (message(1, 8)[:-1], "a number has no end"),
    ):
        (tmp_path / "m.index").write_bytes(table({b"": header, b"w": entry}))
        with pytest.raises(SslrobError, match=said):
            tensorflow.read(tmp_path)
    (tmp_path / "m.index").write_bytes(table({b"": header, b"w": message(1, 8, b"\x35" + masked(bytes(8)).to_bytes(4, "little"))}))
    assert tensorflow.read(tmp_path)["w"].tolist() == [0, 0]
    (tmp_path / "m.index").write_bytes(table({b"": header + bytes([0x10, 1])}))
    with pytest.raises(SslrobError, match="big-endian"):
        tensorflow.read(tmp_path)
    (tmp_path / "m.index").write_bytes(table({b"w": b""}))
    with pytest.raises(SslrobError, match=r"KeyError|no header"):
        tensorflow.read(tmp_path)
