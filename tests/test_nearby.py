"""Near-duplicates of a few texts: every pair that counting by hand finds, and no other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.nearby import index, near

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=14).map(" ".join)


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))} if words else set()


def by_hand(texts: list[str], known: list[str], threshold: float) -> dict[int, float]:
    found = {}
    for row, text in enumerate(texts):
        mine = shingles(text)
        likeness = [len(mine & shingles(k)) / len(mine | shingles(k)) if mine | shingles(k) else 0.0 for k in known]
        if likeness and max(likeness) >= threshold:
            found[row] = max(likeness)
    return found


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(WORDS, max_size=8), known=st.lists(WORDS, max_size=5), threshold=st.sampled_from([0.1, 0.5, 0.8, 1.0]))
def test_it_finds_what_counting_by_hand_finds(texts: list[str], known: list[str], threshold: float) -> None:
    found = near(pa.array(texts, pa.string()), index(pa.array(known, pa.string())), threshold)
    expected = by_hand(texts, known, threshold)
    assert dict(zip(found["doc"].to_pylist(), found["jaccard"].to_pylist(), strict=True)) == pytest.approx(expected)
    for row, of, jaccard in zip(*(found[n].to_pylist() for n in found.schema.names), strict=True):
        a, b = shingles(texts[row]), shingles(known[of])
        assert jaccard == len(a & b) / len(a | b)


def test_a_pair_at_the_threshold_is_found_and_one_below_is_not() -> None:
    words = [f"w{i}" for i in range(40)]
    known = index(pa.array([" ".join(words[:14])]))  # ten shingles
    texts = pa.array([" ".join(words[:12]), " ".join(words[:11]), None, "", "other words"])  # eight, seven of the ten
    found = near(texts, known, 0.8, first=100)
    assert found.to_pylist() == [{"doc": 100, "of": 0, "jaccard": 0.8}]


def test_a_sliced_array_reads_from_the_offset() -> None:
    texts = pa.array(["x y z", "one two three four five six", "one two three four five"]).slice(1)
    found = near(texts, index(pa.array(["one two three four five six"])), 0.5)
    assert found["doc"].to_pylist() == [0, 1]
    assert np.array_equal(found["jaccard"].to_numpy(), [1.0, 0.5])
