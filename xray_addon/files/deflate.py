"""A deflated stream (RFC 1951) of ascending indices, in array code.

zlib spends a search on every index. In runs of consecutive ones there is nothing to search: of an
index's four bytes, lowest first, the first is new and the others are those of the index before.
Such an index is a literal and a reference three bytes long and four bytes back, which is what zlib
comes to as well; the first of each run is four literals.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1 << 15
# Where more than this share of the indices starts a run, zlib's search does better.
MOST_STARTS = 1 / 64
# Symbols beyond the 256 bytes.
END, REFERENCE = 256, 257
LONGEST_CODE = 15
# Distances that have a code of one bit each: the codes are for distances of 1, 2, 3, 4 bytes.
DISTANCE_LENGTHS = (0, 0, 1, 1)
# The order in which a block tells how long the codes of the code lengths are.
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


def deflated_indices(indices: NDArray[np.int32]) -> bytes | None:
    """Whole bytes of a stream that goes on, or None where zlib should rather do it."""
    numbers = np.ascontiguousarray(indices, dtype="<u4")
    octets = numbers.view(np.uint8).reshape(-1, 4)
    lowest = octets[:, 0].astype(np.intp)
    upper = numbers >> np.uint32(8)
    first = np.ones(len(numbers), dtype=bool)
    np.not_equal(upper[1:], upper[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    if len(starts) >= MOST_STARTS * len(numbers):
        return None
    counts = np.bincount(lowest, minlength=REFERENCE + 1)
    counts += np.bincount(octets[starts, 1:].reshape(-1), minlength=REFERENCE + 1)
    counts[[END, REFERENCE]] = 1, len(numbers) - len(starts)
    lengths = _code_lengths(counts)
    codes = _codes(lengths)

    # The bits of each index: in a run, and as the first of one. All are at most 60.
    reference = codes[REFERENCE] | np.uint64(1) << lengths[REFERENCE]  # distance 4 is a 1
    run_bits = codes[:256] | reference << lengths[:256]
    run_lengths = lengths[:256] + lengths[REFERENCE] + np.uint64(1)
    start_bits, start_lengths = np.zeros((2, len(starts)), np.uint64)
    for place in range(4):
        literals = octets[starts, place]
        start_bits |= codes[literals] << start_lengths
        start_lengths += lengths[literals]

    # The stream as one number, lowest bit first.
    header, filled = _header(lengths)
    most = filled + int(run_lengths.max()) * len(numbers) + int(start_lengths.sum())
    words = np.zeros(most // 64 + 3, np.uint64)  # and the end's code
    begun = np.frombuffer(header.to_bytes((filled + 63) // 64 * 8, "little"), "<u8")
    words[: len(begun)] = begun
    for begin in range(0, len(numbers), AT_ONCE):
        literals = lowest[begin : begin + AT_ONCE]
        bits, size = run_bits.take(literals), run_lengths.take(literals)
        inside = slice(*np.searchsorted(starts, (begin, begin + AT_ONCE)))
        bits[starts[inside] - begin] = start_bits[inside]
        size[starts[inside] - begin] = start_lengths[inside]
        filled = _put(words, filled, bits, size.view(np.int64))
    filled = _put(words, filled, codes[[END]], lengths[[END]].view(np.int64))
    # An empty block without compression begins with three zeros and goes on at the next byte.
    return words.astype("<u8", copy=False).tobytes()[: (filled + 3 + 7) // 8] + b"\0\0\xff\xff"


def _put(
    words: NDArray[np.uint64], filled: int, bits: NDArray[np.uint64], size: NDArray[np.int64]
) -> int:
    """Writes pieces of 1 to 60 bits behind the first `filled`; returns how many there are then."""
    ends = np.cumsum(size)
    ends += filled
    begins = ends - size
    word, shift = begins >> 6, (begins & 63).astype(np.uint64)
    # Each word is the beginning of at least one piece; the last of these may go on in the next.
    new = np.flatnonzero(word[1:] != word[:-1]) + 1
    into = slice(int(word[0]), int(word[-1]) + 1)
    words[into] |= np.bitwise_or.reduceat(bits << shift, np.concatenate([[0], new]))
    last = np.append(new - 1, len(bits) - 1)
    # In two steps, since a shift by 64 is not defined.
    words[into.start + 1 : into.stop + 1] |= (
        bits[last] >> np.uint64(1) >> (np.uint64(63) - shift[last])
    )
    return int(ends[-1])


def _code_lengths(counts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Bits of each symbol's Huffman code; 0 for symbols that do not occur."""
    lengths = np.zeros(len(counts), np.int64)
    symbols = np.flatnonzero(counts).tolist()
    heap = [(int(counts[symbol]), symbol, [symbol]) for symbol in symbols]
    heapq.heapify(heap)
    while len(heap) > 1:
        (count, order, few), (more, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        few = few + others
        lengths[few] += 1
        heapq.heappush(heap, (count + more, order, few))
    if lengths.max() > LONGEST_CODE:
        return _code_lengths((counts + 1) // 2)
    return lengths.astype(np.uint64)


def _codes(lengths: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The canonical codes, highest bit first as they are read."""
    codes = np.zeros(len(lengths), np.uint64)
    code, length = 0, 0
    for symbol in np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]:
        code <<= int(lengths[symbol]) - length
        length = int(lengths[symbol])
        codes[symbol] = _turned(code, length)
        code += 1
    return codes


def _turned(code: int, length: int) -> int:
    return int(f"{code:0{length}b}"[::-1], 2)


def _header(lengths: NDArray[np.uint64]) -> tuple[int, int]:
    """What a block with these codes begins with, lowest bit first, and how many bits that is."""
    # A block that is not the last, with codes of its own; how many of these there are for symbols,
    # distances and code lengths.
    fields = [(0, 1), (2, 2), (len(lengths) - 257, 5), (len(DISTANCE_LENGTHS) - 1, 5), (15, 4)]
    # The code lengths 0 to 15 have codes of four bits; 16 to 18, which repeat, are not used.
    fields += [(4 if number < 16 else 0, 3) for number in ORDER]
    fields += [(_turned(int(length), 4), 4) for length in (*lengths, *DISTANCE_LENGTHS)]
    header, filled = 0, 0
    for value, size in fields:
        header |= value << filled
        filled += size
    return header, filled
