"""What `npz` writes NumPy reads, and `deflated_indices` is a stream that zlib reads."""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_addon.files import deflate
from xray_addon.files.deflate import deflated_indices
from xray_addon.files.npz import REPEATED, RUNS, npz


@st.composite
def runs(draw) -> np.ndarray:
    """Ascending runs of consecutive numbers, most of them long."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, longest = draw(st.integers(1, 60)), draw(st.sampled_from([1, 40, 300, 5000]))
    lengths = random.integers(1, longest + 1, count)
    # From almost none to nearly all values of the three upper bytes.
    gaps = random.integers(0, draw(st.sampled_from([2, 300, 10**5, 2 * 10**7])), count)
    starts = np.cumsum(gaps + np.concatenate([[0], lengths[:-1]]))
    numbers = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, lengths, strict=True)])
    return numbers[numbers < 2**31].astype(np.int32)


@given(runs())
@settings(max_examples=300, deadline=None)
def test_indices_come_back_or_are_left_to_zlib(numbers):
    stream = deflated_indices(numbers)
    starts = np.count_nonzero(np.diff(numbers >> 8)) + 1
    assert (stream is None) == (starts >= deflate.MOST_STARTS * len(numbers))
    if stream is not None:
        reader = zlib.decompressobj(-zlib.MAX_WBITS)
        # It ends at a whole byte, where another stream can go on.
        assert reader.decompress(stream) == numbers.tobytes()
        assert reader.decompress(zlib.compress(b"on", wbits=-zlib.MAX_WBITS)) == b"on"
        assert reader.eof
        assert not reader.unused_data


def test_codes_are_no_longer_than_a_stream_can_tell():
    # Of symbols as rare as these the codes would have 30 bits.
    counts = np.zeros(258, np.int64)
    counts[:30] = [1, *np.cumprod([2] * 29)]
    lengths = deflate._code_lengths(counts).astype(int)
    assert lengths[:30].min() > 0
    assert lengths.max() <= 15
    assert (0.5 ** lengths[:30]).sum() == 1


def test_runs_are_smaller_than_zlib_makes_them_at_its_fastest():
    numbers = np.concatenate([np.arange(256 * i, 256 * i + 150) for i in range(500)])
    numbers = numbers.astype(np.int32)
    stream = deflated_indices(numbers)
    assert stream is not None
    assert len(stream) < 1.05 * len(zlib.compress(numbers, 1))


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 5, 4000, 70000]))
@settings(max_examples=40, deadline=None)
def test_numpy_reads_what_is_written(seed, count):
    random = np.random.default_rng(seed)
    arrays = {
        "noise": random.normal(size=count).astype(np.float32),
        "mixed": np.concatenate([random.normal(size=count), np.ones(count)]).astype(np.float32),
        "rising": np.arange(count, dtype=np.int32),
        "wide": np.arange(count),
        "single": np.array(7),
    }
    parts = {
        "mixed": [(count // 2, 0), (count // 2, 1), (count, 0), (2 * count, 1)],
        "rising": [(count // 2, RUNS), (count, REPEATED)],
    }
    content = npz(arrays, parts)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
    with np.load(io.BytesIO(content), allow_pickle=False) as read:
        assert read.files == list(arrays)
        for name, values in arrays.items():
            np.testing.assert_array_equal(read[name], values)
            assert read[name].dtype == values.dtype
    assert npz(arrays, parts) == content


def test_noise_is_not_searched_and_repetitions_are_found():
    random = np.random.default_rng(0)
    noise = random.random(50_000).astype(np.float32)
    arrays = {"data": np.concatenate([noise, np.ones(50_000, np.float32)])}
    apart = len(npz(arrays, {"data": [(50_000, 0), (100_000, 1)]}))
    assert apart < 1.01 * len(npz({"data": noise}, {"data": [(50_000, 0)]}))
