"""Vectors by random projection: against a twin to the last bit, against Ochiai's coefficient, and by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pyarrow as pa
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import _native, embedding

KNOWN = st.sampled_from([*"abc ABC \n\té世界สวัก", "İ", "ß", "word ", "\U0001f600"])
TEXTS = st.lists(st.lists(KNOWN, max_size=30).map("".join), max_size=6)


def grams(text: str, ngram: int) -> set[tuple[str, ...]]:
    return set(twins.ngrams(twins.white_space_tokens(text, "scripts"), ngram))


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(1, 4), st.sampled_from([8, 63, 64, 65, 200]))
def test_sums_are_those_of_the_twin(texts: list[str], ngram: int, dim: int) -> None:
    found = embedding.sums(pa.array(texts, pa.string()), ngram=ngram, dim=dim)
    for row, text in enumerate(texts):
        # hashes of different orders are added one by one: the orders' sets are apart
        expected = np.zeros(dim, np.int64)
        for order in range(1, ngram + 1):
            hashes = {twins.shingle_hash(g) for g in grams(text, ngram) if len(g) == order}
            expected += np.array(twins.projection(hashes, dim))
        assert found[row].tolist() == expected.tolist()


def test_the_signs_of_one_hash_by_hand() -> None:
    # fold(a, b) of the 128-bit product, written out once more without the twin's names
    c = (0xC0AC29B7C97C50DD, 0x3F84D5B5B5470917, 0x9216D5D98979FB1B)
    product = (((5 + c[0]) % 2**64) ^ c[1]) * c[2]
    word = (product >> 64) ^ (product % 2**64)
    sums = np.full((2, 8), 10, np.int32)
    _native.embed_project(np.array([5, 5], np.uint64), np.array([0, 1, 1], np.int64), 8, sums)
    assert sums[0].tolist() == [10 + (1 if word >> j & 1 else -1) for j in range(8)]
    assert sums[1].tolist() == [10] * 8


def test_counts_beyond_one_plane_of_bits() -> None:
    # the same hash many times: the sum is the sign times the number
    for many in (1, 2, 3, 255, 256, 70_000):
        sums = np.zeros((1, 65), np.int32)
        _native.embed_project(np.full(many, 9, np.uint64), np.array([0, many], np.int64), 65, sums)
        assert set(np.abs(sums).ravel().tolist()) == {many}


def test_the_cosine_is_the_share_of_common_ngrams() -> None:
    draw = random.Random(1)
    words = [f"word{i}" for i in range(2000)]
    errors = []
    for common in (0, 50, 100, 150, 200):
        for _ in range(8):
            drawn = draw.sample(words, 400 - common)
            a, b = drawn[:200], drawn[200 - common :]
            found, _ = embedding.vectors(pa.array([" ".join(a), " ".join(b)]), ngram=1, dim=1024)
            errors.append(float(found[0] @ found[1]) - common / 200)
    assert abs(float(np.mean(errors))) < 0.02
    assert max(map(abs, errors)) < 0.16  # five standard errors of 1 / sqrt(1024)


def test_case_and_space_do_not_matter_repeats_do_not_and_words_do() -> None:
    texts = ["The red sea", "the  RED\nsea", "the red sea the red sea the", "the dead sea", "", " \n"]
    found, known = embedding.vectors(pa.array(texts), ngram=1, dim=384)
    assert known.tolist() == [True, True, True, True, False, False]
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    assert 0.4 < float(found[0] @ found[3]) < 0.9  # two of three words: 2/3
    assert np.linalg.norm(found[:4].astype(np.float64), axis=1) == pytest.approx(1, abs=1e-6)
    order, _ = embedding.vectors(pa.array(["a b", "b a"]), ngram=2, dim=384)
    assert not (order[0] == order[1]).all()


def test_a_text_of_one_word_has_no_pair_of_words() -> None:
    one = embedding.sums(pa.array(["sea"]), ngram=1, dim=64)
    assert (embedding.sums(pa.array(["sea"]), ngram=3, dim=64) == one).all()


def test_columns_of_any_shape_give_the_same() -> None:
    texts = ["a b c", None, "é世界", "x " * 3000, "last"]
    whole = embedding.sums(pa.array(texts, pa.string()), ngram=2, dim=96)
    assert not whole[1].any()
    assert (embedding.sums(pa.array(texts, pa.large_string()).slice(2, 2), ngram=2, dim=96) == whole[2:4]).all()
    chunked = pa.chunked_array([pa.array(texts[:2], pa.string()), pa.array(texts[2:], pa.string())])
    assert (embedding.sums(chunked, ngram=2, dim=96) == whole).all()
    many = pa.array([f"number {i}" for i in range(2100)])
    assert (embedding.sums(many, ngram=2, dim=8)[2050:] == embedding.sums(many.slice(2050), ngram=2, dim=8)).all()


def test_lying_starts_are_refused() -> None:
    values, sums = np.zeros(3, np.uint64), np.zeros((2, 8), np.int32)
    for starts in ([0, 2, 1], [0, 4, 4], [-1, 0, 0]):
        with pytest.raises(ValueError, match="never decrease"):
            _native.embed_project(values, np.array(starts, np.int64), 8, sums)
    with pytest.raises(ValueError, match="dimensions"):
        _native.embed_project(values, np.array([0, 1, 2], np.int64), 5000, sums)
    with pytest.raises(ValueError, match="'sums'"):
        _native.embed_project(values, np.array([0, 1, 2], np.int64), 9, sums)


def test_length_is_one_over_the_square_root_of_the_sum_of_squares() -> None:
    found, _ = embedding.vectors(pa.array(["sea"]), ngram=1, dim=64)
    assert set(np.abs(found).ravel().tolist()) == {1 / math.sqrt(64)}
