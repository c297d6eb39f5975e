"""What the rules count: by hand, against the twin, and on columns of every shape."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins_textrules import counts

from curate import textrules
from curate.errors import ConfigError

ALL = textrules.WORDS + textrules.LINES + textrules.REPEATS
PIECES = ["the", "of", "The", "A", "with", "be", "a", "b", "_", "7", "٣", "#", ".", "..", "...", "…", "-", "•", "!", "?", '"', "’", "。", "！", "؟", "é", "ß", "漢", "字", "ไ", "\u3000", " ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u2028", "\x1c", "👍", "a line of words\n", "and that again\n\n"]
TEXTS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.lists(st.sampled_from(["a", "b ", " c", "\n"]), max_size=80).map("".join))


def one(text: str, **more: int) -> dict[str, int]:
    return {name: int(column[0]) for name, column in textrules.count(pa.array([text]), ALL, **more).items()}


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.integers(0, 40))
def test_the_kernel_counts_what_the_twin_counts(text: str, short_chars: int) -> None:
    assert one(text, short_chars=short_chars) == counts(text, short_chars)


def test_counts_by_hand() -> None:
    found = one("the cat of the cat of the dog.\n\n- a…\nx")
    assert (found["chars"], found["words"], found["proper"], found["spaced_chars"], found["stops"]) == (38, 11, 10, 26, 2)
    assert (found["lines"], found["filled"], found["bullets"], found["trailing"], found["punctuated"], found["short"]) == (4, 3, 1, 1, 1, 3)
    # "the cat", "cat of", "of the" stand twice: the first counts, 7 characters twice; "the cat of" 10; "the cat of the" 14
    assert (found["top_2"], found["top_3"], found["top_4"], found["dup_5"]) == (14, 20, 28, 0)


def test_duplicate_ngrams_by_hand() -> None:
    words = "a b c d e f g h i j"  # ten letters
    found = one(f"{words} {words}")
    # behind the first ten, two whole 5-grams are met again; one 6-gram, then four words are left over
    assert [found[f"dup_{n}"] for n in range(5, 11)] == [10, 6, 7, 8, 9, 10]


def test_lines_and_paragraphs_by_hand() -> None:
    found = one("one\ntwo\n\none\ntwo\n \ntwo")
    assert (found["dup_lines"], found["dup_line_chars"]) == (3, 9)
    assert (found["paragraphs"], found["dup_paragraphs"], found["dup_paragraph_chars"]) == (3, 1, 7)


def test_a_character_of_a_script_without_spaces_is_a_word() -> None:
    found = one("漢字 ab。")
    assert (found["words"], found["unspaced"], found["proper"], found["spaced"], found["spaced_chars"]) == (4, 3, 3, 1, 2)


def test_more_repeated_words_than_a_table_of_one_cache_holds() -> None:
    text = " ".join(str(i % 50_000) for i in range(100_000))
    found = one(text)
    assert found["top_2"] == 2 * len("0 1")
    assert found["dup_5"] == sum(len(str(i)) for i in range(50_000))


@given(st.lists(st.none() | TEXTS, max_size=12), st.integers(0, 12), st.sampled_from([pa.string(), pa.large_string()]))
@settings(max_examples=60, deadline=None)
def test_slices_and_nulls(texts: list[str | None], start: int, kind: pa.DataType) -> None:
    found = textrules.count(pa.array(texts, kind)[start:], ALL)
    for row, text in enumerate(texts[start:]):
        expected = counts(text) if text is not None else dict.fromkeys(textrules.COLUMNS, 0)
        assert {name: int(column[row]) for name, column in found.items()} == expected


def test_what_is_not_asked_is_the_same_where_it_is_given() -> None:
    text = pa.array(["the same line\nthe same line\n\nthe end of the line, of the line"])
    whole = textrules.count(text, ALL)
    for wanted, names in ((textrules.WORDS, ["proper", "stops", "bullets"]), (textrules.LINES, ["filled", "dup_line_chars", "words", "newlines"]), (textrules.REPEATS, ["top_2", "dup_paragraphs", "dup_5", "dup_lines", "chars"])):
        some = textrules.count(text, wanted)
        assert all(some[name][0] == whole[name][0] for name in names)


def test_another_column_is_refused() -> None:
    with pytest.raises(ConfigError, match="text column"):
        textrules.count(pa.array([1, 2]), ALL)


def test_a_null_measure_breaks_no_rule_and_bounds_are_inclusive() -> None:
    batch = pa.record_batch([pa.array([0.1, 0.2, None, 0.3])], names=["x"])
    keep, reason = textrules.verdict(batch, [textrules.Rule("x", "odd", least=0.2, most=0.2)])
    assert (keep.to_pylist(), reason.to_pylist()) == ([False, True, True, False], ["odd", None, None, "odd"])
