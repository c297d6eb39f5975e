"""Items in documents: by hand, against the twin, on columns of every shape, and what normalising may not change."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins_contamination import shares, words

from curate import _native, contamination
from curate.contamination import Index, passages
from curate.errors import ConfigError

WORDS = ["a", "b", "c", "D", "e", "Fi", "ﬁ", "x_1", "naïve", "İ", "是", "的", "ไ", "हिन्दी", "２", "é", "e\u0301"]
PIECES = st.tuples(st.sampled_from(WORDS), st.sampled_from([" ", ", ", "\n", " - ", "。", "... ", "\u00a0", "’"])).map("".join)
TEXTS = st.lists(PIECES, max_size=24).map("".join)
SMALL = {"few": 2, "many": 4, "min_words": 2, "min_characters": 3}


def found_in(documents: pa.Array, items: list[str], flag: float, **sizes: int) -> dict[tuple[int, int], tuple[float, float, bool]]:
    index = Index(pa.array(items), **sizes)
    found = index.weigh(index.count(documents), len(documents), flag=flag).match(documents)
    columns = zip(found.row.tolist(), found.item.tolist(), found.containment.tolist(), found.overlap.tolist(), found.exact.tolist(), strict=True)
    return {(row, item): (containment, overlap, exact) for row, item, containment, overlap, exact in columns}


def words_of(texts: pa.Array) -> list[int]:
    values, ends = contamination.terms(contamination.normalized(texts))
    assert len(values) == (ends[-1] if len(ends) else 0)
    return np.diff(np.concatenate([[0], ends])).tolist()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.none() | TEXTS, min_size=1, max_size=6), st.lists(TEXTS, min_size=1, max_size=5), st.sampled_from([0.001, 0.3, 1.0]))
def test_the_kernel_finds_what_the_twin_finds(documents: list[str | None], items: list[str], flag: float) -> None:
    ours = found_in(pa.array(documents, pa.string()), items, flag, **SMALL)
    theirs = shares(documents, items, flag=flag, **SMALL)
    for pair in ours.keys() ^ theirs.keys():  # a share that is the flag itself, but for rounding
        assert math.isclose((ours.get(pair) or theirs[pair])[0], flag, abs_tol=1e-5)
    for pair in ours.keys() & theirs.keys():
        assert ours[pair][2] == theirs[pair][2]
        assert ours[pair][:2] == pytest.approx(theirs[pair][:2], abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | TEXTS, max_size=8), st.integers(0, 8), st.sampled_from([pa.string(), pa.large_string()]))
def test_slices_nulls_and_both_kinds_of_string_have_the_same_words(texts: list[str | None], start: int, kind: pa.DataType) -> None:
    assert words_of(pa.array(texts, kind)[start:]) == [len(words(text or "")) for text in texts[start:]]
    items = ["a b c D e", "naïve 是 的 x_1"]
    whole, part = found_in(pa.array(texts, kind), items, 0.01, **SMALL), None
    index = Index(pa.array(items), **SMALL)
    weighed = index.weigh(index.count(pa.array(texts, kind)), len(texts), flag=0.01)
    part = weighed.match(pa.array(texts, kind)[start:])
    assert list(zip((part.row + min(start, len(texts))).tolist(), part.item.tolist(), strict=True)) == [p for p in whole if p[0] >= start]
    assert [n == -1 for n in part.words] == [text is None for text in texts[start:]]


def test_shares_by_hand() -> None:
    items = ["one two three four five six", "alpha beta gamma delta"]
    documents = pa.array(["zero ONE, two (three) four! seven", "alpha beta gamma delta", "so alpha beta gamma delta it is", "delta gamma beta alpha", "one two"])
    index = Index(pa.array(items), few=2, many=5, min_words=2, min_characters=2)
    seen = index.count(documents)
    found = index.weigh(seen, 5, flag=0.01).match(documents)
    # of the first item's five pairs of words, the first document has three; "one two" stands in two documents, the others in one or none
    once, twice, never = math.log(1 + 5 / 2), math.log(1 + 5 / 3), math.log(1 + 5)
    total = twice + 2 * once + 2 * never
    assert found.row.tolist() == [0, 1, 2, 4]
    assert found.containment.tolist() == pytest.approx([(twice + 2 * once) / total, 1, 1, twice / total], abs=1e-5)
    assert found.overlap.tolist() == [0, 1, 1, 0]  # four words are fewer than five: they stand in a row, or not
    assert found.exact.tolist() == [False, True, False, False]
    assert list(passages(documents, found)) == ["one, two (three) four", "alpha beta gamma delta", "alpha beta gamma delta", "one two"]
    assert found.words.tolist() == [6, 4, 7, 4, 2]


def test_all_pairs_of_words_in_another_order_are_no_item_in_a_row() -> None:
    found = found_in(pa.array(["b c d a b x c"]), ["a b c d"], 0.01, few=2, many=5, min_words=2, min_characters=2)
    assert found == {(0, 0): (pytest.approx(1.0), 0.0, False)}


def test_short_items_are_not_checkable_and_unspaced_ones_count_characters() -> None:
    index = Index(pa.array(["one two three four", "one two three four five", "一二三四五六七八九", "一二三四五六七八九十", "", None]))
    assert index.checkable.tolist() == [False, True, False, True, False, False]
    assert index.sizes.tolist() == [4, 5, 9, 10, 0, 0]


def test_no_text_of_stable_characters_has_other_words_in_nfkc() -> None:
    stable = re.compile(f"[{re.sub(r'x{([0-9a-f]+)}', lambda m: 'u' + m[1].zfill(4), contamination._STABLE)}]")
    texts = pa.array([f"a{chr(code)}b" for code in range(0x10000) if stable.match(chr(code))])
    assert len(texts) > 30_000
    assert contamination.normalized(texts).equals(texts)
    values, ends = contamination.terms(texts)
    again, other_ends = contamination.terms(pc.utf8_normalize(texts, form="NFKC"))
    same = np.zeros(len(texts), bool)
    for i, (stop, other) in enumerate(zip(ends, other_ends, strict=True)):
        same[i] = values[ends[i - 1] if i else 0 : stop].tolist() == again[other_ends[i - 1] if i else 0 : other].tolist()
    assert [text for text, equal in zip(texts.to_pylist(), same, strict=True) if not equal] == []


def test_more_pairs_than_a_call_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contamination, "_ROOM", 1)
    items = [f"w{i} w{i + 1} w{i + 2} shared words here" for i in range(9)]
    found = found_in(pa.array(["shared words here", " ".join(items)] * 4), items, 0.01, few=2, many=4, min_words=2, min_characters=2)
    assert sorted(found) == [(row, item) for row in range(8) for item in range(9)]


def test_an_index_that_lies_is_refused() -> None:
    index = Index(pa.array(["a b c d e f"]))
    good = [5, 13, index._keys, index._ids, index._filter, index._bits, index.starts, np.ones(len(index.grams), np.int64), index.items, index.term_starts, index.terms, np.ones(1, np.int64)]
    _native.contamination_index(*good)
    for place, bad in ((3, np.full(len(index._ids), 7, np.int32)), (3, np.zeros(len(index._ids), np.int32)), (5, 4), (6, index.starts[::-1].copy()), (8, index.items + 1), (9, index.term_starts * 2), (1, 5), (7, np.ones(0, np.int64))):
        with pytest.raises(ValueError, match="expected"):
            _native.contamination_index(*good[:place], bad, *good[place + 1 :])


def test_other_columns_and_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="text column"):
        Index(pa.array(["a b c d e f"])).count(pa.array([1]))
    for sizes in ({"few": 13, "many": 13}, {"few": 0}, {"many": 65}, {"min_words": 4}, {"min_characters": 4}):
        with pytest.raises(ConfigError, match="expected"):
            Index(pa.array(["a"]), **sizes)
