"""A synthetic SimCLR checkpoint: a tensor bundle of TensorFlow, zipped as google-research/simclr publishes version 1.

Variables are named by the scopes of model.py, resnet.py and model_util.py, and numbered in the order in which these make the layers.  The
bundle is `tensorflow/core/protobuf/tensor_bundle.proto` in a table of leveldb (doc/table_format.md there), all written out here.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from published_draws import BLOCKS, CLASSES, STEM, Draws

Variables = dict[str, NDArray[Any]]
RESTART, BLOCK = 16, 1024  # entries between whole keys, bytes in a block; TensorFlow fills 256 KiB
MAGIC = 0xDB4775248B80FB57
DTYPES = {"float32": 1, "int64": 9}


def simclr(path: Path, *, version: int = 1) -> Variables:
    """Writes a zip of a folder with a checkpoint, its linear head in it, and a module of TensorFlow Hub; returns the variables.

    Args:
        version: 2 has LARS's slots and a moving average of the whole model beside it (Separius/SimCLRv2-Pytorch convert.py skips both).
    """
    draws = Draws(50)
    variables = _variables(draws)
    found: Variables = {**variables, "global_step": np.array(225206, dtype=np.int64)}
    if version == 2:
        found |= {f"{name}/Momentum": np.ones_like(values) for name, values in variables.items() if "moving" not in name}
        found |= {f"ema_model/{name}": values for name, values in _variables(draws).items() if "head_supervised" not in name}
    index, data = bundle(found)
    name = f"{path.stem}/model.ckpt-225206"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}/", "")
        archive.writestr(f"{path.stem}/checkpoint", 'model_checkpoint_path: "model.ckpt-225206"\n')
        archive.writestr(f"{name}.data-00000-of-00001", data)
        archive.writestr(f"{name}.index", index)
        archive.writestr(f"{name}.meta", b"\x0a\x00")
        archive.writestr(f"{path.stem}/graph.pbtxt", "node {\n}\n")
        archive.writestr(f"{path.stem}/hub/tfhub_module.pb", b"\x08\x03")
        archive.writestr(f"{path.stem}/hub/saved_model.pb", b"\x08\x01")
        hub = bundle(variables) if version == 1 else (index, data)
        for part, content in zip(("index", "data-00000-of-00001"), hub, strict=True):
            archive.writestr(f"{path.stem}/hub/variables/variables.{part}", content)
        archive.writestr(f"__MACOSX/{path.stem}/._checkpoint", b"\x00\x05\x16\x07")
    return variables


def _variables(draws: Draws) -> Variables:
    found: Variables = {}
    counts = {"conv2d": 0, "batch_normalization": 0}

    def numbered(kind: str) -> str:
        counts[kind] += 1
        return f"base_model/{kind}" + (f"_{counts[kind] - 1}" if counts[kind] > 1 else "")

    def norm(name: str, channels: int) -> None:
        found[f"{name}/gamma"] = draws.between(0.5, 1.5, channels).numpy()
        found[f"{name}/beta"] = draws.normal(channels, std=0.2).numpy()
        found[f"{name}/moving_mean"] = draws.normal(channels, std=0.3).numpy()
        found[f"{name}/moving_variance"] = draws.between(0.5, 1.5, channels).numpy()

    def conv(out: int, into: int, size: int) -> None:
        found[f"{numbered('conv2d')}/kernel"] = draws.conv(out, into, size).permute(2, 3, 1, 0).contiguous().numpy()
        norm(numbered("batch_normalization"), out)

    conv(STEM, 3, 7)
    into = STEM
    for group, blocks in enumerate(BLOCKS[14]):
        inner = STEM * 2**group
        for block in range(blocks):
            if block == 0:
                conv(4 * inner, into, 1)  # the shortcut is made first
            conv(inner, into, 1)
            conv(inner, inner, 3)
            conv(4 * inner, inner, 1)
            into = 4 * inner
    for layer, out in enumerate((24, 16)):
        found[f"head_contrastive/nl_{layer}/dense/kernel"] = draws.normal(into if layer == 0 else 24, out).numpy()
        norm(f"head_contrastive/nl_{layer}/batch_normalization", out)
    found["head_supervised/linear_layer/dense/kernel"] = draws.normal(into, CLASSES, std=into**-0.5).numpy()
    found["head_supervised/linear_layer/dense/bias"] = draws.normal(CLASSES).numpy()
    return found


# ---- the bundle


def bundle(variables: Mapping[str, NDArray[Any]]) -> tuple[bytes, bytes]:
    """Contents of the index and of the one data file."""
    data = b""
    entries = {b"": _field(1, 1) + _field(3, _field(1, 1))}  # BundleHeaderProto: one shard, little-endian, of version 1
    for name, values in sorted(variables.items()):
        raw = values.tobytes()
        shape = b"".join(_field(2, _field(1, size)) for size in values.shape)
        entry = _field(1, DTYPES[str(values.dtype)]) + _field(2, shape)  # BundleEntryProto
        entry += (_field(4, len(data)) if data else b"") + _field(5, len(raw)) + b"\x35" + struct.pack("<I", masked_crc32c(raw))
        entries[name.encode()] = entry
        data += raw
    return table(entries), data


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


# ---- the table


def table(entries: Mapping[bytes, bytes]) -> bytes:
    """leveldb's: blocks of sorted entries, an empty block of metadata, a block with the place of each block, and a footer."""
    out = b""
    index: dict[bytes, bytes] = {}
    for block in _blocks(entries):
        index[max(block)], written = _put(block, len(out), RESTART)
        out += written
    meta, written = _put({}, len(out), RESTART)
    out += written
    root, written = _put(index, len(out), 1)
    out += written
    return out + (meta + root).ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def _blocks(entries: Mapping[bytes, bytes]) -> Iterator[dict[bytes, bytes]]:
    block: dict[bytes, bytes] = {}
    for key, value in sorted(entries.items()):
        block[key] = value
        if sum(len(k) + len(v) for k, v in block.items()) > BLOCK:
            yield block
            block = {}
    if block:
        yield block


def _put(block: Mapping[bytes, bytes], offset: int, restart: int) -> tuple[bytes, bytes]:
    """Where a block is, and the block with its trailer."""
    out, last, restarts = b"", b"", [0]
    for i, (key, value) in enumerate(block.items()):
        shared = 0
        if i % restart == 0:
            restarts[i // restart :] = [len(out)]
        else:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        out += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    out += b"".join(struct.pack("<I", at) for at in [*restarts, len(restarts)])
    return _varint(offset) + _varint(len(out)), out + b"\0" + struct.pack("<I", masked_crc32c(out + b"\0"))


def _crc_table() -> list[int]:
    found = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        found.append(number)
    return found


CRC = _crc_table()


def masked_crc32c(content: bytes) -> int:
    """leveldb's util/crc32c.h: Castagnoli's checksum, turned by 15 bits, and a constant."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = CRC[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
