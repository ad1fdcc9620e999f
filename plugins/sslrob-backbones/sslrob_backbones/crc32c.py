"""Checksums as LevelDB and TensorFlow take them: CRC-32C (Castagnoli), stored masked."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
POLYNOMIAL = 0x82F63B78  # reflected
LANES = 4096  # parts of a long text that are summed at once
MASK = 0xA282EAD8


def masked(content: bytes) -> int:
    """The checksum as it is stored beside the content that it sums."""
    plain = crc32c(content)
    return ((plain >> 15 | plain << 17) + MASK) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """CRC-32C of some bytes; 100 MB take about a second.

    A checksum is linear in its content, so that of a long text is put together from those of its parts, each moved on by as many zero
    bytes as follow it.
    """
    table = _table()
    length = len(content) // LANES // 2 * 2
    state = np.uint32(0xFFFFFFFF)
    if length:
        pairs = _pairs()
        lanes = np.frombuffer(content, "<u2", LANES * length // 2).reshape(LANES, -1)
        parts = np.zeros(LANES, np.uint32)
        for column in np.ascontiguousarray(lanes.T):
            parts = pairs[(parts & 0xFFFF) ^ column] ^ (parts >> 16)
        moved = _moved_on(length)
        for part in parts:
            state = moved[0][state & 0xFF] ^ moved[1][state >> 8 & 0xFF] ^ moved[2][state >> 16 & 0xFF] ^ moved[3][state >> 24] ^ part
    for byte in content[LANES * length :]:
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return int(state) ^ 0xFFFFFFFF


@cache
def _table() -> Words:
    """What each byte makes of an empty state."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


@cache
def _pairs() -> Words:
    """What each two bytes make of an empty state."""
    table, both = _table(), np.arange(65536, dtype=np.uint32)
    first: Words = table[both & 0xFF] ^ (both >> 8)
    second: Words = table[first & 0xFF] ^ (first >> 8)
    return second


@cache
def _moved_on(length: int) -> list[Words]:
    """For each of a state's four bytes, what it becomes after `length` zero bytes (a power of a matrix, by squaring)."""
    bits: Words = np.uint32(1) << np.arange(32, dtype=np.uint32)
    step: Words = _table()[bits & 0xFF] ^ (bits >> 8)  # of each bit, after one zero byte
    whole: Words = bits
    while length:
        if length & 1:
            whole = _through(step, whole)
        step = _through(step, step)
        length >>= 1
    every: Words = np.arange(256, dtype=np.uint32)
    return [_through(whole, every << np.uint32(8 * place)) for place in range(4)]


def _through(step: Words, states: Words) -> Words:
    """The states after a step, which is told by what it makes of each bit."""
    after = np.zeros_like(states)
    for bit in range(32):
        after ^= np.where(states >> bit & 1, step[bit], 0).astype(np.uint32)
    return after
