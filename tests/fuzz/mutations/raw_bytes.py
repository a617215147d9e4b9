"""Bytes of any file are cut, changed, added, or all replaced."""

import gzip

import numpy as np

from tests.fuzz.mutations.kinds import Mutation, into, pick

MUTATIONS: dict[str, Mutation] = {}
_mutation = into(MUTATIONS)


def _span(rng: np.random.Generator, length: int) -> tuple[int, int]:
    start = int(rng.integers(length + 1))
    return start, min(length, start + int(pick(rng, (1, 2, 4, 16, 100, 512, 4096))))


@_mutation("")
def truncate(rng, contents):
    return contents[: int(rng.integers(len(contents) + 1))]


@_mutation("")
def cut_the_end(rng, contents):
    return contents[: -int(rng.integers(1, 40))]


@_mutation("")
def flip_a_bit(rng, contents):
    spoiled = bytearray(contents)
    if spoiled:
        spoiled[int(rng.integers(len(spoiled)))] ^= 1 << int(rng.integers(8))
    return bytes(spoiled)


@_mutation("")
def flip_a_bit_of_the_head(rng, contents):
    spoiled = bytearray(contents)
    if spoiled:
        spoiled[int(rng.integers(min(len(spoiled), 256)))] ^= 1 << int(rng.integers(8))
    return bytes(spoiled)


@_mutation("")
def change_bytes(rng, contents):
    spoiled = bytearray(contents)
    for _ in range(int(rng.integers(1, 20)) if spoiled else 0):
        spoiled[int(rng.integers(len(spoiled)))] = int(rng.integers(256))
    return bytes(spoiled)


@_mutation("")
def zero_a_span(rng, contents):
    start, end = _span(rng, len(contents))
    return contents[:start] + bytes(end - start) + contents[end:]


@_mutation("")
def remove_a_span(rng, contents):
    start, end = _span(rng, len(contents))
    return contents[:start] + contents[end:]


@_mutation("")
def insert_bytes(rng, contents):
    start, _ = _span(rng, len(contents))
    return contents[:start] + rng.bytes(int(pick(rng, (1, 2, 8, 100)))) + contents[start:]


@_mutation("")
def repeat_a_span(rng, contents):
    start, end = _span(rng, len(contents))
    return contents[:end] + contents[start:end] * int(pick(rng, (1, 3, 100))) + contents[end:]


@_mutation("")
def odd_number(rng, contents):
    """An integer of two, four or eight bytes becomes one that is odd for a size, a count or an offset."""
    width = int(pick(rng, (2, 4, 8)))
    value = int(pick(rng, (0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1, 65)))
    start = int(rng.integers(len(contents) + 1))
    order = str(pick(rng, ("little", "big")))
    return contents[:start] + value.to_bytes(width, order) + contents[start + width :]


@_mutation("")
def something_else(rng, contents):
    return pick(
        rng,
        (
            b"",
            b"\n",
            b"\0" * 1000,
            rng.bytes(300),
            b"<!DOCTYPE html><html><body>quota exceeded</body></html>\n",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5800000\n",
            b"PK\x03\x04",
            b"PK\x05\x06" + bytes(18),
            b"\x80\x04.",
            b"\x93NUMPY\x01\x00",
            b"{}",
            b"[]",
            b"null",
            gzip.compress(contents, mtime=0),
        ),
    )
