"""Deflates the column indices of X-Rays, compiled by numba: a tenth of zlib's time."""

# numba infers the types of what it compiles.
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from __future__ import annotations

from typing import Any

import numpy as np

from ..compiling import Compiled, inline

# Deflate, RFC 1951. A word of 4 bytes whose upper three are those of the word before it becomes its
# lowest byte and a match of length 3 at distance 4, which is all that packs rising numbers. Others
# become four bytes.
WORDS_AT_ONCE = 1 << 15  # a block, with a Huffman code of its own
END, MATCH, SYMBOLS = 256, 257, 258  # the end of a block, a match of length 3
LONGEST_CODE = 15
# A symbol is counted at least once in so many, which keeps codes within 15 bits: 16 would take
# one of probability 1 / 2584, as the Fibonacci numbers say.
RAREST = 11  # 2 ** 11
MOST_NEW = 1 / 50  # where more words have other upper bytes, zlib packs better


def pack_words(data: Any) -> bytes:
    """`data`, of at least one word of 4 bytes, as raw deflate; empty where zlib packs it better."""
    words = np.frombuffer(data, np.uint32)
    upper = words >> 8
    if np.count_nonzero(upper[1:] != upper[:-1]) > MOST_NEW * len(words):
        return b""
    return bytes(_packed(words))


@inline
def _code_lengths(counts):
    """Lengths (S,) of a Huffman code for symbols with these counts; 0 for those without."""
    least = counts.sum() >> RAREST
    used = np.flatnonzero(counts)
    # Of the symbols and then of the nodes above them, both ascending: two queues.
    order = used[np.argsort(np.maximum(counts[used], least) * SYMBOLS + used)]
    leaves = len(order)
    weight = np.empty(2 * leaves, np.int64)
    parent = np.zeros(2 * leaves, np.int64)
    for i in range(leaves):
        weight[i] = max(counts[order[i]], least)
    leaf, inner = 0, leaves
    for node in range(leaves, 2 * leaves - 1):
        total = 0
        for _ in range(2):
            if inner >= node or (leaf < leaves and weight[leaf] <= weight[inner]):
                total += weight[leaf]
                parent[leaf] = node
                leaf += 1
            else:
                total += weight[inner]
                parent[inner] = node
                inner += 1
        weight[node] = total
    depth = np.zeros(2 * leaves, np.int64)
    lengths = np.zeros(len(counts), np.int64)
    for node in range(2 * leaves - 3, -1, -1):
        depth[node] = depth[parent[node]] + 1
        if node < leaves:
            lengths[order[node]] = depth[node]
    return lengths


@inline
def _reversed(value, bits):
    result = 0
    for _ in range(bits):
        result = result << 1 | value & 1
        value >>= 1
    return result


@inline
def _codes(lengths):
    """The code (S,) of each symbol, first bit lowest."""
    codes = np.zeros(len(lengths), np.int64)
    code = 0
    for bits in range(1, LONGEST_CODE + 1):
        for symbol in range(len(lengths)):
            if lengths[symbol] == bits:
                codes[symbol] = _reversed(code, bits)
                code += 1
        code <<= 1
    return codes


@inline
def _put(out, place, held, bits, value, length):
    """Append `length` < 32 bits; returns the place in `out`, what is held back, and its length."""
    held |= value << bits
    bits += length
    if bits >= 32:
        out[place] = held & 0xFFFFFFFF
        return place + 1, held >> 32, bits - 32
    return place, held, bits


@Compiled
def _packed(words):
    blocks = -(-len(words) // WORDS_AT_ONCE)
    out = np.empty(2 * len(words) + 64 * blocks, np.uint32)
    place, held, bits = 0, 0, 0
    follows = np.zeros(256, np.int64)
    long = np.zeros(256, np.int64)
    for block in range(blocks):
        start = block * WORDS_AT_ONCE
        stop = min(start + WORDS_AT_ONCE, len(words))
        counts = np.zeros(SYMBOLS, np.int64)
        counts[END] = 1
        for i in range(start, stop):
            word = np.int64(words[i])
            counts[word & 255] += 1
            if i > 0 and word >> 8 == np.int64(words[i - 1]) >> 8:
                counts[MATCH] += 1
            else:
                for shift in (8, 16, 24):
                    counts[word >> shift & 255] += 1
        lengths = _code_lengths(counts)
        codes = _codes(lengths)
        # The block's header: whether it is the last, that it brings its codes, how many, and their
        # lengths, each in 4 bits. The only distance, the fourth, has a code of one bit.
        head = np.int64(block == blocks - 1) | 2 << 1 | (SYMBOLS - 257) << 3 | 3 << 8 | 15 << 13
        place, held, bits = _put(out, place, held, bits, head, 17)
        for i in range(19):
            place, held, bits = _put(out, place, held, bits, 0 if i < 3 else 4, 3)
        for symbol in range(SYMBOLS):
            value = _reversed(lengths[symbol], 4)
            place, held, bits = _put(out, place, held, bits, value, 4)
        for i in range(4):
            place, held, bits = _put(out, place, held, bits, 8 if i == 3 else 0, 4)
        for low in range(256):
            follows[low] = codes[low] | codes[MATCH] << lengths[low]
            long[low] = lengths[low] + lengths[MATCH] + 1
        for i in range(start, stop):
            word = np.int64(words[i])
            low = word & 255
            if i > 0 and word >> 8 == np.int64(words[i - 1]) >> 8:
                place, held, bits = _put(out, place, held, bits, follows[low], long[low])
            else:
                for shift in (0, 8, 16, 24):
                    byte = word >> shift & 255
                    place, held, bits = _put(out, place, held, bits, codes[byte], lengths[byte])
        place, held, bits = _put(out, place, held, bits, codes[END], lengths[END])
    out[place] = held
    return out[: place + 1].view(np.uint8)[: 4 * place + (bits + 7) // 8]
