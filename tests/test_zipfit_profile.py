"""What a document tells in one pass: its own stream by hand and by zlib, grams and trees by brute force."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import _native, deflate, zipfit_profile
from curate.deflate import Compressor
from curate.errors import ConfigError, DataError
from curate.zipfit_profile import GROUPS, SYMBOLS, Guide, features, profiles

GZIP = Compressor("gzip", 6)
TARGETS = ["def sub(a, b):\n    return a - b\n", "for i in range(10):\n    print(add(i, i + 1))\n", "a rose is a rose is a rose", "x"]


def texts(n: int, seed: int = 0, letters: str = "ab c\n", longest: int = 300) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(letters, k=draw.randint(0, longest))) for _ in range(n)]


def column(values: Sequence[str]) -> pa.Array:
    return pa.array(values, pa.large_string())


def symbols_of(text: str, level: int = 6) -> dict[int, int]:
    found = zipfit_profile._streams(column([text]), Compressor("gzip", level))[1][0]
    return {int(i): int(found[i]) for i in np.flatnonzero(found)}


# ------------------------------------------------------------------ a document's own stream


def test_the_symbols_of_a_short_stream_by_hand() -> None:
    # zlib matches nothing at place 0: a, b, c, a, then eight bytes from three back; length code 262 is 8, distance code 2 is 3
    assert symbols_of("abcabcabcabc") == {97: 2, 98: 1, 99: 1, 262: 1, 256: 1, 288 + 2: 1}
    assert symbols_of("") == {256: 1}
    assert symbols_of("aaaaa") == {97: 2, 257: 1, 256: 1, 288: 1}


def test_symbols_of_all_blocks_are_added_up() -> None:
    noise = random.Random(1).choices([chr(c) for c in range(32, 127)], k=40_000)
    found = symbols_of("".join(noise))
    own = sum(n for s, n in found.items() if s < 288) - found[256]
    assert found[256] == own // 16_383 + 1 == 3
    literals = sum(n for s, n in found.items() if s < 256)
    assert literals + 3 * sum(n for s, n in found.items() if 256 < s < 288) <= 40_000
    assert literals > 38_000


@pytest.mark.parametrize("level", range(1, 10))
def test_compressed_bytes_are_those_of_deflate(level: int) -> None:
    sample = [*texts(40, level), "", "é" * 3000, "".join(texts(200, 9, "abcdefgh", 600))]
    for name in ("gzip", "zlib", "deflate"):
        found = profiles(column(sample), [], Compressor(name, level))
        assert found["compressed"].tolist() == deflate.lengths(column(sample), Compressor(name, level)).tolist()
    assert found["bytes"].tolist() == [len(t.encode()) for t in sample]


@pytest.mark.parametrize("simd", ["scalar", "avx2", "avx512"])
def test_every_variant_of_the_kernel_gives_the_same(simd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = column(texts(50, 3, "abcdefghij ", 900))
    expected = profiles(sample, [Guide(column(TARGETS), GZIP)], GZIP)
    monkeypatch.setenv("CURATE_SIMD", simd)
    assert profiles(sample, [Guide(column(TARGETS), GZIP)], GZIP).tobytes() == expected.tobytes()


# ------------------------------------------------------------------ grams


def by_brute_force(text: bytes, targets: Sequence[bytes], group: Sequence[int], size: int) -> list[int]:
    own = {text[i : i + size] for i in range(len(text) - size + 1)}
    sums = [0] * GROUPS
    for target, g in zip(targets, group, strict=True):
        sums[g] += len(own & {target[i : i + size] for i in range(len(target) - size + 1)})
    return sums


def table(targets: pa.Array, group: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    return zipfit_profile._table(targets, np.array(group, np.uint8), size)


def counted(found: Sequence[str], targets: Sequence[str], group: Sequence[int], met: int = 0) -> list[list[list[int]]]:
    sums = np.empty((len(found), 2, GROUPS), np.int64)
    four, eight = (table(column(targets), group, size) for size in (4, 8))
    _native.zipfit_grams_count(column(found), four, eight, met or len(targets), sums)
    return sums.tolist()  # type: ignore[no-any-return]


def test_grams_by_hand() -> None:
    # abcd twice and bcde once in the text; abcd in two targets of group 0, bcde in one of them and in one of group 3
    found = counted(["abcdeabcd", "abc", ""], ["abcde", "zabcd", "bcde"], [0, 0, 3])
    assert found[0] == [[3, 0, 0, 1], [0, 0, 0, 0]]
    assert found[1] == found[2] == [[0] * 4, [0] * 4]
    assert counted(["0123456789"], ["x01234567", "12345678"], [1, 2]) == [[[0, 5, 5, 0], [0, 1, 1, 0]]]


@pytest.mark.parametrize("letters", ["ab", "abcdefgh", "\0\1", "é世a"])
def test_grams_are_those_of_sets_of_bytes(letters: str) -> None:
    found, targets = texts(60, 1, letters), texts(40, 2, letters)
    group = [i % 3 for i in range(40)]
    if letters == "\0\1":  # four NULs are told from \1\0\0\0 by nothing: no text here has either
        found, targets = ([t.replace("\0\0\0\0", "").replace("\1\0\0\0", "") for t in some] for some in (found, targets))
    raw = [t.encode() for t in targets]
    expected = [[by_brute_force(t.encode(), raw, group, size) for size in (4, 8)] for t in found]
    assert counted(found, targets, group) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("abc", max_size=150), min_size=1, max_size=5), st.lists(st.text("abc", max_size=40), min_size=1, max_size=6))
def test_grams_of_any_texts_are_those_of_sets(found: list[str], targets: list[str]) -> None:
    group = [i % GROUPS for i in range(len(targets))]
    raw = [t.encode() for t in targets]
    assert counted(found, targets, group) == [[by_brute_force(t.encode(), raw, group, size) for size in (4, 8)] for t in found]


def test_a_table_grows_and_keeps_every_gram() -> None:
    targets = texts(300, 4, "abcdefghijklmnopqrstuvwxyz", 400)
    found = texts(20, 4, "abcdefghijklmnopqrstuvwxyz", 400) + targets[:5]
    assert len(table(column(targets), [0] * 300, 8)[0]) > 1 << 8
    raw = [t.encode() for t in targets]
    assert counted(found, targets, [0] * 300) == [[by_brute_force(t.encode(), raw, [0] * 300, s) for s in (4, 8)] for t in found]


def test_a_table_that_is_too_small_is_said() -> None:
    small = np.zeros((1, 16), np.uint32)
    assert not _native.zipfit_grams_enter(column(["abcdefgh"]), np.zeros(1, np.uint8), 4, small, np.zeros(1, np.uint16))


def test_the_numbers_of_texts_may_run_out() -> None:
    guide = Guide(column(TARGETS), GZIP)
    expected = guide.grams_of(column(TARGETS)).tolist()
    guide._met = (1 << 32) - len(TARGETS) - 1
    assert guide.grams_of(column(TARGETS)).tolist() == expected
    assert guide.grams_of(column(TARGETS)).tolist() == expected
    assert guide._met == 2 * len(TARGETS) - len(TARGETS)


@pytest.mark.parametrize(
    ("size", "group", "rows", "words"),
    [(5, 0, 4, "4 or 8 bytes"), (4, GROUPS, 4, "groups below 4"), (4, 0, 3, "power of two")],
)
def test_the_kernel_refuses_what_it_cannot_hold(size: int, group: int, rows: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _native.zipfit_grams_enter(column(["abcd"]), np.array([group], np.uint8), size, np.zeros((rows, 16), np.uint32), np.zeros(rows, np.uint16))


# ------------------------------------------------------------------ what a guide makes of a document


def test_near_is_the_mean_of_one_over_the_longer() -> None:
    targets = texts(37, 5, "abcdefghij", 500)
    compressed = deflate.lengths(column(targets), GZIP)
    guide = Guide(column(targets), GZIP)
    for own in (1, 20, 50, 133, 10_000):
        expected = np.mean(1 / np.maximum(own, compressed))
        assert guide.near(np.array([own])).sum() == pytest.approx(expected, rel=1e-12)
    assert guide.sizes.sum() == 37


def test_the_tree_is_the_bits_that_two_histograms_save_as_one() -> None:
    sample = [*texts(5, 6, "abcdefghij", 400), "a" * 90 + "b" * 200 + "c"]
    guide = Guide(column(TARGETS), GZIP)
    counts = zipfit_profile._streams(column(sample), GZIP)[1].astype(float)

    def bits(histogram: np.ndarray) -> float:
        used = histogram[histogram > 0]
        return float(-(used * np.log2(used / used.sum())).sum())

    expected = [bits(h + guide.mean) - bits(h) - bits(guide.mean) for h in counts]
    np.testing.assert_allclose(profiles(column(sample), [guide], GZIP)["guides"]["tree"][:, 0], expected, rtol=1e-9)


def test_a_profile_does_not_depend_on_the_rows_around_it() -> None:
    sample = column(texts(200, 7, "abcdefghij", 400))
    guides = [Guide(column(TARGETS), GZIP), Guide(column(TARGETS[:1]), GZIP)]
    whole = profiles(sample, guides, GZIP)
    assert whole.tobytes() == b"".join(profiles(sample.slice(i, 7), guides, GZIP).tobytes() for i in range(0, 200, 7))
    narrow = sample.cast(pa.string()).slice(3, 50)
    assert profiles(narrow, guides, GZIP).tobytes() == whole[3:53].tobytes()
    each = np.concatenate([features(whole[i : i + 1], 1) for i in range(200)])
    assert (each == features(whole, 1)).all()


def test_features_are_finite_for_the_smallest_and_for_the_emptiest() -> None:
    found = features(profiles(column(["", "a", "\n" * 70_000]), [Guide(column(["", "b"]), GZIP)], GZIP), 0)
    assert np.isfinite(found).all()


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="large_string"):
        profiles(pa.array([b"x"]), [], GZIP)
    with pytest.raises(DataError, match="at least one target"):
        Guide(column([]), GZIP)
    assert SYMBOLS % 8 == 0
