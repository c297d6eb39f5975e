"""Compressed lengths: golden numbers of zlib 1.2.13, stock zlib itself over many kinds of input, and the Arrow edge."""

from __future__ import annotations

import doctest
import random
import sys
import types
import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import deflate
from curate.deflate import Compressor
from curate.errors import ConfigError, DataError

SIMD = ("scalar", "avx2", "avx512")
TEXTS = [
    "The quick brown fox jumps over the lazy dog. The dog barks; the fox runs away.",
    "def add(a, b):\n    return a + b\n\n\ndef mul(a, b):\n    return a * b\n",
    "Theorem 1. For every n >= 0, n*(n+1)/2 is an integer. Proof: by induction on n.",
    "Café MÜNCHEN naïve — 你好，世界! 😀 100% snake_case x_1\r\n\tdon't",
    "",
]
TARGETS = [
    "def sub(a, b):\n    return a - b\n",
    "def div(a, b):\n    if b == 0:\n        raise ZeroDivisionError\n    return a / b\n",
    "for i in range(10):\n    print(add(i, i + 1))\n",
]
#: level: C(text), C(target), C(text + target), by Python 3.11's gzip with zlib 1.2.13; level 9 gives what 6 gives.
GOLDEN = {
    1: ([89, 63, 96, 98, 20], [50, 88, 62],
        [[111, 142, 124], [73, 111, 98], [118, 146, 128], [128, 165, 140], [50, 88, 62]]),
    6: ([89, 63, 96, 98, 20], [50, 87, 62],
        [[111, 141, 124], [73, 110, 98], [118, 145, 128], [128, 164, 140], [50, 87, 62]]),
    9: ([89, 63, 96, 98, 20], [50, 87, 62],
        [[111, 141, 124], [73, 110, 98], [118, 145, 128], [128, 164, 140], [50, 87, 62]]),
}  # fmt: skip
#: The mean of 1 - NCD over the targets, by the formula with those lengths.
GOLDEN_MEANS = {
    1: [0.337078651685, 0.506012506013, 0.333333333333, 0.207482993197, 0.316617790811],
    6: [0.337078651685, 0.507754059478, 0.333333333333, 0.207482993197, 0.317488567544],
}

needs_stock_zlib = pytest.mark.skipif(
    not deflate.stock_zlib(),
    reason=f"this Python's zlib is {zlib.ZLIB_RUNTIME_VERSION}, whose lengths are not stock zlib's",
)


def column(texts: Sequence[bytes]) -> pa.Array:
    """Bytes as a text column: the kernel does not ask what they mean."""
    ends = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)


def by_zlib(
    texts: Sequence[bytes], targets: Sequence[bytes], level: int
) -> tuple[list[int], list[list[int]]]:
    own = [len(zlib.compress(x, level)) for x in texts]
    return own, [[len(zlib.compress(x + t, level)) for t in targets] for x in texts]


def check(texts: Sequence[bytes], targets: Sequence[bytes], level: int) -> None:
    own, pairs = deflate.joined(column(texts), column(targets), Compressor("zlib", level))
    expected_own, expected_pairs = by_zlib(texts, targets, level)
    assert own.tolist() == expected_own
    assert pairs.tolist() == expected_pairs


# ------------------------------------------------------------------ golden numbers


@pytest.mark.parametrize("level", GOLDEN)
def test_gzip_lengths_are_the_golden_ones(level: int) -> None:
    of_texts, of_targets, of_pairs = GOLDEN[level]
    own, pairs = deflate.joined(pa.array(TEXTS), pa.array(TARGETS), Compressor("gzip", level))
    assert own.tolist() == of_texts
    assert pairs.tolist() == of_pairs
    assert deflate.lengths(pa.array(TARGETS), Compressor("gzip", level)).tolist() == of_targets


def test_the_containers_cost_eighteen_six_and_no_bytes() -> None:
    for name, expected in (("zlib", [77, 51, 84, 86, 8]), ("deflate", [71, 45, 78, 80, 2])):
        assert deflate.lengths(pa.array(TEXTS), Compressor(name, 6)).tolist() == expected


@pytest.mark.parametrize("level", GOLDEN_MEANS)
def test_similarity_is_the_mean_of_one_minus_ncd(level: int) -> None:
    found = deflate.similarity(pa.array(TEXTS), pa.array(TARGETS), Compressor("gzip", level))
    np.testing.assert_allclose(found, GOLDEN_MEANS[level], rtol=0, atol=1e-12)


def test_the_examples_in_the_module_hold() -> None:
    assert doctest.testmod(deflate).failed == 0


# ------------------------------------------------------------------ stock zlib


def some_bytes(draw: random.Random, size: int) -> bytes:
    """Noise, runs, periods, words, repeats of itself, few letters, letters of skewed frequency, phrases."""
    words = [bytes(draw.choices(b"etaoinshrdlu", k=draw.randint(1, 9))) for _ in range(60)]
    kind = draw.randrange(8)
    if kind == 0:
        return draw.randbytes(size)
    if kind == 1:
        return bytes([draw.randrange(256)]) * size
    if kind == 2:
        return (draw.randbytes(draw.randint(1, 300)) * size)[:size]
    if kind == 3:
        return b" ".join(draw.choices(words, k=size // 4 + 1))[:size]
    if kind == 4:
        out = bytearray(draw.randbytes(3))
        while len(out) < size:
            at = draw.randrange(len(out))
            out += out[at : at + draw.randint(1, 400)] if draw.random() < 0.6 else draw.choice(words)
        return bytes(out[:size])
    if kind == 5:
        return bytes(draw.choices(b"ab", k=size))
    if kind == 6:
        return bytes(draw.choices(range(97, 123), weights=[2.0**-i for i in range(26)], k=size))
    return b"".join(draw.choices([b"the ", b"cat ", b"sat\n", b"0123456789"], k=size // 3 + 1))[:size]


def some_pairs(seed: int, pairs: int, sizes: Sequence[tuple[int, int]]) -> None:
    """Compare at least so many pairs with zlib: sizes are ranges, drawn from evenly."""
    draw = random.Random(seed)
    done = 0
    while done < pairs:
        texts = [some_bytes(draw, draw.randint(*draw.choice(sizes))) for _ in range(4)]
        targets = [some_bytes(draw, draw.randint(*draw.choice(sizes))) for _ in range(4)]
        targets.append(texts[0][: draw.randint(0, 300)])  # what the document has already
        check(texts, targets, draw.randint(1, 9))
        done += len(texts) * len(targets)


@needs_stock_zlib
def test_two_thousand_pairs_of_every_kind_and_level_are_as_long_as_zlibs() -> None:
    some_pairs(1, 2000, [(0, 12), (0, 400), (0, 3000)])


@needs_stock_zlib
def test_pairs_past_the_window_are_as_long_as_zlibs() -> None:
    some_pairs(2, 60, [(0, 500), (30_000, 36_000), (64_900, 66_500)])


@needs_stock_zlib
@pytest.mark.slow
def test_twelve_thousand_pairs_of_every_kind_and_level_are_as_long_as_zlibs() -> None:
    some_pairs(3, 12_000, [(0, 12), (0, 400), (0, 3000), (0, 9000)])


@needs_stock_zlib
@pytest.mark.slow
def test_eight_hundred_long_pairs_are_as_long_as_zlibs() -> None:
    some_pairs(4, 800, [(0, 500), (30_000, 36_000), (64_900, 66_500), (90_000, 200_000)])


@needs_stock_zlib
@given(x=st.text(max_size=60), t=st.text(max_size=60), level=st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_any_two_texts_are_as_long_together_as_zlibs(x: str, t: str, level: int) -> None:
    check([x.encode()], [t.encode(), b"", (t + x + t).encode()], level)


@needs_stock_zlib
@given(
    parts=st.lists(st.sampled_from([b"aaa", b"ab", b"abc", b"\x00", b"aaab", b"bca"]), max_size=30),
    level=st.integers(1, 9),
)
@settings(max_examples=200, deadline=None)
def test_a_text_cut_anywhere_is_as_long_as_whole(parts: list[bytes], level: int) -> None:
    whole = b"".join(parts)
    for at in range(0, len(whole) + 1, 5):
        _, pairs = deflate.joined(column([whole[:at]]), column([whole[at:]]), Compressor("zlib", level))
        assert pairs.tolist() == [[len(zlib.compress(whole, level))]]


@needs_stock_zlib
@pytest.mark.parametrize("size", [65_273, 65_274, 65_275, 65_276, 65_535, 65_536, 65_537, 98_042, 98_043])
def test_the_window_slides_where_zlibs_slides(size: int) -> None:
    draw = random.Random(size)
    block = draw.randbytes(500)
    text = bytearray(draw.choices(b"abcdef", k=size))
    for at in (0, 1, 32_767, 32_768, 32_769, size - 900):
        text[at : at + 500] = block
    for level in (1, 5, 6, 9):
        check([bytes(text[:size])], [block[:200], bytes(text[32_760:33_500]), b"a"], level)


@needs_stock_zlib
@pytest.mark.parametrize("symbols", [16_382, 16_383, 16_384, 32_766, 32_767])
def test_blocks_end_where_zlibs_end(symbols: int) -> None:
    """Noise has no matches, so each byte is a symbol; then the same with text behind it, and in the target."""
    noise = random.Random(symbols).randbytes(symbols)
    for level in (1, 6):
        check([noise, noise[:100]], [noise[:50], b"the end of the text, the end", noise], level)


@needs_stock_zlib
def test_noise_is_stored_and_what_is_stored_starts_at_a_byte() -> None:
    noise = random.Random(5).randbytes(40_000)
    check([noise, b"aaaa" + noise, noise + b"a" * 100], [noise[:3], b"abc" * 9, b""], 6)


@needs_stock_zlib
def test_trees_deeper_than_the_format_allows_are_cut_as_zlib_cuts_them() -> None:
    """Letters of halving frequency make code lengths beyond 15 bits, and their lengths' lengths beyond 7."""
    draw = random.Random(6)
    for level in (1, 6):
        for ratio in (1.6, 2.0, 2.6):
            texts = [
                bytes(draw.choices(range(256), weights=[ratio ** -(i % 24) for i in range(256)], k=size))
                for size in (1000, 12_000, 30_000)
            ]
            check(texts, [texts[0][:300], b"\x00" * 50], level)


@needs_stock_zlib
def test_one_symbol_one_distance_and_nothing_at_all() -> None:
    check(
        [b"", b"a", b"aa", b"aaa", b"aaaa", b"a" * 259, b"a" * 70_000],
        [b"", b"a", b"b", b"a" * 300, b"ab"],
        6,
    )


@needs_stock_zlib
@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("level", [1, 4, 6])
def test_every_instruction_set_gives_zlibs_lengths(
    simd: str, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATE_SIMD", simd)
    draw = random.Random(level)
    check(
        [some_bytes(draw, 1500) for _ in range(12)],
        [some_bytes(draw, draw.randint(0, 800)) for _ in range(9)],
        level,
    )


# ------------------------------------------------------------------ the Arrow edge


def test_slices_chunks_and_large_strings_give_the_same_lengths() -> None:
    gzip = Compressor()
    texts, targets = pa.array(TEXTS * 3), pa.array(TARGETS)
    own, pairs = deflate.joined(texts, targets, gzip)
    chunked = pa.chunked_array([texts.slice(0, 4), texts.slice(4, 0), texts.slice(4)])
    for other in (
        chunked,
        texts.cast(pa.large_string()),
        pa.concat_arrays([pa.array(["x"]), texts]).slice(1),
    ):
        found = deflate.joined(other, pa.chunked_array([targets.slice(0, 1), targets.slice(1)]), gzip)
        assert found[0].tolist() == own.tolist()
        assert found[1].tolist() == pairs.tolist()


def test_a_null_text_has_no_lengths_and_no_similarity() -> None:
    texts = pa.array([TEXTS[0], None, ""])
    own, pairs = deflate.joined(texts, pa.array(TARGETS), Compressor())
    assert own.tolist() == [89, -1, 20]
    assert pairs.tolist() == [[111, 141, 124], [-1, -1, -1], [50, 87, 62]]
    assert np.isnan(deflate.similarity(texts, pa.array(TARGETS), Compressor())).tolist() == [
        False,
        True,
        False,
    ]


def test_no_texts_and_no_targets_are_allowed_where_they_mean_something() -> None:
    none = pa.array([], pa.string())
    own, pairs = deflate.joined(none, pa.array(TARGETS), Compressor())
    assert own.shape == (0,)
    assert pairs.shape == (0, 3)
    assert deflate.similarity(none, pa.array(TARGETS), Compressor()).shape == (0,)
    with pytest.raises(DataError, match="at least one target"):
        deflate.similarity(pa.array(TEXTS), none, Compressor())


def test_more_rows_than_are_measured_at_once_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = deflate.similarity(pa.array(TEXTS * 4), pa.array(TARGETS), Compressor())
    monkeypatch.setattr(deflate, "_CELLS", 7)
    np.testing.assert_array_equal(
        deflate.similarity(pa.array(TEXTS * 4), pa.array(TARGETS), Compressor()), whole
    )


def test_columns_that_are_no_text_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="cast it first"):
        deflate.lengths(pa.array([1, 2]), Compressor())
    with pytest.raises(ConfigError, match="targets as string or large_string"):
        deflate.joined(pa.array(TEXTS), pa.array([1]), Compressor())
    with pytest.raises(DataError, match="targets without nulls, got 1"):
        deflate.joined(pa.array(TEXTS), pa.array(["a", None]), Compressor())


def test_offsets_that_lie_are_refused() -> None:
    lying = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 9, 2], np.int32)), pa.py_buffer(b"abc")]
    )
    with pytest.raises(DataError, match="text column"):
        deflate.lengths(lying, Compressor())


# ------------------------------------------------------------------ compressors


def test_level_zero_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="level 0 stores without compressing"):
        Compressor("gzip", 0)


def test_levels_and_names_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="from 1 to 9 for zlib, got 10"):
        Compressor("zlib", 10)
    with pytest.raises(ConfigError, match="from 1 to 22 for zstd, got 0"):
        Compressor("zstd", 0)
    with pytest.raises(ConfigError, match="compressor as one of gzip"):
        Compressor("brotli", 6)  # type: ignore[arg-type]


def test_zstd_is_what_its_library_says() -> None:
    import zstandard

    expected = [len(zstandard.ZstdCompressor(level=3).compress(t.encode())) for t in TEXTS]
    assert deflate.lengths(pa.array(TEXTS), Compressor("zstd", 3)).tolist() == expected
    assert Compressor("zstd", 3).library().startswith("zstd 1.")
    assert Compressor("gzip", 3).library() == ""


def test_lz4_asks_its_package_for_frames_of_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = types.SimpleNamespace(compress=lambda data, compression_level: data + b"." * compression_level)
    package = types.SimpleNamespace(frame=frame, library_version_string=lambda: "9.9.9")
    monkeypatch.setitem(sys.modules, "lz4", package)
    monkeypatch.setitem(sys.modules, "lz4.frame", frame)
    own, pairs = deflate.joined(pa.array(["abc", None]), pa.array(["de"]), Compressor("lz4", 5))
    assert own.tolist() == [8, -1]
    assert pairs.tolist() == [[10], [-1]]
    assert Compressor("lz4", 5).library() == "lz4 9.9.9"


def test_lz4_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    with pytest.raises(ConfigError, match="pip install lz4"):
        deflate.lengths(pa.array(["abc"]), Compressor("lz4", 0))


def test_similarity_is_what_is_shared_over_the_longer() -> None:
    own, alone, both = GOLDEN[6]
    expected = [sum((x + t - xt) / max(x, t) for t, xt in zip(alone, row, strict=True)) / 3 for x, row in zip(own, both, strict=True)]
    np.testing.assert_allclose(deflate.similarity(pa.array(TEXTS), pa.array(TARGETS), Compressor("gzip", 6)), expected, rtol=1e-12)
