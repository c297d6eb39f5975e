from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import twins
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from curate import randomness
from curate.errors import ConfigError

WORDS64 = st.integers(0, 2**64 - 1)
N = 200_000
KEYS = np.arange(N, dtype=np.uint64)  # the worst case for a counter: neighbours differ in few bits
STREAM_LITERAL = 0x20E6BED06D1BEA50
BITS_LITERAL = [0x3C4A9189787B3332, 0xB8F267336E78BFA5, 0x879DE4E4AD28E1D6]


def kolmogorov(sample: np.ndarray) -> float:
    """The distance to the uniform distribution, times sqrt(n); above 1.95 in one of a thousand."""
    ordered = np.sort(sample)
    steps = np.arange(1, len(ordered) + 1) / len(ordered)
    distance = max(float((steps - ordered).max()), float((ordered - steps + 1 / len(ordered)).max()))
    return distance * math.sqrt(len(ordered))


@given(key=WORDS64, stream=WORDS64)
def test_bits_are_the_twins(key: int, stream: int) -> None:
    assert randomness.bits(np.array([key], np.uint64), stream).tolist() == [twins.noise_bits(key, stream)]


def test_streams_are_pinned() -> None:
    """Recorded once from the definition; a selection made with a seed depends on them."""
    assert randomness.stream(7) == xxhash.xxh3_64_intdigest(b"1:7,")
    assert randomness.stream(7, "select", "dsir") == xxhash.xxh3_64_intdigest(b"1:7,6:select,4:dsir,")
    assert randomness.stream(-1, "é") == xxhash.xxh3_64_intdigest(b"2:-1,2:\xc3\xa9,")
    assert randomness.stream(7, "select", "dsir") == STREAM_LITERAL


def test_names_do_not_run_together() -> None:
    streams = [
        randomness.stream(1, "ab", "c"),
        randomness.stream(1, "a", "bc"),
        randomness.stream(1, "abc"),
        randomness.stream(1, "ab", "c", ""),
        randomness.stream(1, "ab,1:c"),
        randomness.stream(11, "ab", "c"),
    ]
    assert len(set(streams)) == len(streams)


def test_draws_are_pinned() -> None:
    keys = np.array([0, 1, 2**64 - 1], np.uint64)
    assert randomness.bits(keys, 0).tolist() == BITS_LITERAL
    assert randomness.uniform(keys, 0).tolist() == [((b >> 12) + 0.5) / 2**52 for b in BITS_LITERAL]
    expected = [-math.log(-math.log(((b >> 12) + 0.5) / 2**52)) for b in BITS_LITERAL]
    np.testing.assert_allclose(randomness.gumbel(keys, 0), expected, rtol=1e-12)


def test_keys_are_xxh3_of_the_bytes() -> None:
    texts = ["", "a", "naïve", "x" * 1000]
    expected = [xxhash.xxh3_64_intdigest(text.encode()) for text in texts]
    assert randomness.keys_of(pa.array([""])).tolist() == [0x2D06800538D394C2]  # the specification's value
    for kind in (pa.string(), pa.large_string()):
        assert randomness.keys_of(pa.array(texts, kind)).tolist() == expected
        assert randomness.keys_of(pa.array(["z", *texts, "z"], kind).slice(1, 4)).tolist() == expected
    chunked = pa.chunked_array([pa.array(texts[:1]), pa.array([], pa.string()), pa.array(texts[1:])])
    assert randomness.keys_of(chunked).tolist() == expected
    assert randomness.keys_of(pa.array([text.encode() for text in texts])).tolist() == expected
    assert randomness.keys_of(pa.array([], pa.string())).size == 0


def test_a_null_identity_has_the_key_zero() -> None:
    keys = randomness.keys_of(pa.array(["a", None, "b"]))
    assert keys.tolist() == [xxhash.xxh3_64_intdigest(b"a"), 0, xxhash.xxh3_64_intdigest(b"b")]


def test_other_identities_and_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="string or binary"):
        randomness.keys_of(pa.array([1, 2]))
    with pytest.raises(ConfigError, match="uint64"):
        randomness.bits(np.arange(3), 0)


def test_a_draw_depends_on_its_key_alone() -> None:
    whole = randomness.gumbel(KEYS[:1000], 5)
    order = np.random.default_rng(0).permutation(1000)
    assert randomness.gumbel(KEYS[:1000][order], 5).tobytes() == whole[order].tobytes()
    assert randomness.gumbel(KEYS[10:20], 5).tobytes() == whole[10:20].tobytes()
    assert randomness.gumbel(KEYS[:1000:3], 5).tobytes() == whole[::3].tobytes()


def test_uniform_is_open_and_uniform() -> None:
    sample = randomness.uniform(KEYS, randomness.stream(1, "a"))
    assert sample.min() > 0
    assert sample.max() < 1
    assert kolmogorov(sample) < 1.95
    assert kolmogorov(randomness.uniform(KEYS << np.uint64(40), randomness.stream(1, "a"))) < 1.95


def test_gumbel_has_its_distribution() -> None:
    sample = randomness.gumbel(KEYS, randomness.stream(2, "b"))
    assert kolmogorov(np.exp(-np.exp(-sample))) < 1.95
    assert abs(sample.mean() - 0.5772156649) < 5 * math.pi / math.sqrt(6 * N)


def test_each_bit_is_set_half_of_the_time() -> None:
    drawn = randomness.bits(KEYS, randomness.stream(3))
    shares = [(drawn >> np.uint64(bit) & np.uint64(1)).mean() for bit in range(64)]
    assert max(abs(share - 0.5) for share in shares) < 4.5 / (2 * math.sqrt(N))


def test_streams_and_neighbouring_keys_are_independent() -> None:
    streams = [
        0,
        1,
        2,
        2**63,
        randomness.stream(1, "x"),
        randomness.stream(1, "y"),
        randomness.stream(2, "x"),
    ]
    samples = [randomness.uniform(KEYS, stream) for stream in streams]
    bound = 4.5 / math.sqrt(N)
    for i, one in enumerate(samples):
        assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < bound
        for other in samples[i + 1 :]:
            assert abs(np.corrcoef(one, other)[0, 1]) < bound
            assert kolmogorov((one + other) % 1.0) < 1.95
            assert kolmogorov((one - other) % 1.0) < 1.95


def test_flipping_one_bit_of_key_or_stream_flips_half_of_the_bits() -> None:
    for bit in range(64):
        flip = 1 << bit
        by_key = randomness.bits(KEYS[:500], 7) ^ randomness.bits(KEYS[:500] ^ np.uint64(flip), 7)
        by_stream = randomness.bits(KEYS[:500], 7) ^ randomness.bits(KEYS[:500], 7 ^ flip)
        for changed in (by_key, by_stream):
            flips = np.unpackbits(changed.view(np.uint8)).sum() / 500
            assert abs(flips - 32) < 5 * 4 / math.sqrt(500)


def test_gumbel_top_k_draws_in_proportion_to_the_weights() -> None:
    """Three documents with weights 1, 2 and 5, drawn under many seeds."""
    keys = randomness.keys_of(pa.array(["a", "b", "c"]))
    scores = np.log([1.0, 2.0, 5.0])
    wins = np.zeros(3)
    for seed in range(8000):
        wins[np.argmax(scores + randomness.gumbel(keys, randomness.stream(seed, "select")))] += 1
    for share, expected in zip(wins / 8000, [1 / 8, 2 / 8, 5 / 8], strict=True):
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 8000)
