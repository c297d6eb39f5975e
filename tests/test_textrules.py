"""What the rules count: by hand, against the twin, and on columns of every shape."""

from __future__ import annotations

import numpy as np
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
    assert (found["quoted"], found["repeated"]) == (0, 4)
    # "the cat", "cat of", "of the" stand twice: the first counts, 7 characters twice; "the cat of" 10; "the cat of the" 14
    assert (found["top_2"], found["top_3"], found["top_4"], found["dup_5"]) == (14, 20, 28, 0)


def test_what_stands_once_is_the_most_frequent_where_nothing_repeats() -> None:
    found = one("aa b ccc dd")
    assert (found["top_2"], found["top_3"], found["top_4"], found["repeated"]) == (4, 8, 11, 0)
    found = one("aa b aa b x")  # of 2-grams "aa b" twice; of 3- and 4-grams the first
    assert (found["top_2"], found["top_3"], found["top_4"], found["repeated"]) == (8, 7, 9, 2)
    assert [one("aa")[f"top_{n}"] for n in (2, 3, 4)] == [0, 0, 0]


def test_a_line_that_ends_in_a_quotation_mark_is_counted_apart() -> None:
    found = one("he said.\"\nso’\n「そう。」\nwell.\nno")
    assert (found["filled"], found["punctuated"], found["quoted"]) == (5, 1, 3)


@given(st.lists(st.sampled_from([*"ab#.x7", ".", "..", " ", "  ", "\n", "a long line of letters and blanks ", "é"]), min_size=40, max_size=300).map("".join))
@settings(max_examples=150, deadline=None)
def test_texts_of_several_blocks(text: str) -> None:
    assert one(text) == counts(text)


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


def test_the_first_rule_that_is_broken_is_the_reason() -> None:
    batch = pa.record_batch([pa.array([1, 5, 9, None]), pa.array([True, False, False, None]), pa.array([1, 5, 9, None])], names=["x", "y", "z"])
    rules = [textrules.Rule("x", "small", least=2), textrules.Rule("y", "not so", least=1), textrules.Rule("z", "large", most=8)]
    assert textrules.verdict(batch, rules)[1].to_pylist() == ["small", "not so", "not so", None]
    assert textrules.verdict(batch, [rules[0], textrules.Rule("y", "off"), rules[2]])[1].to_pylist() == ["small", None, "large", None]
    assert textrules.verdict(batch.slice(0, 0), rules)[0].to_pylist() == []


def test_a_null_measure_breaks_no_rule_and_bounds_are_inclusive() -> None:
    batch = pa.record_batch([pa.array([0.1, 0.2, None, 0.3])], names=["x"])
    keep, reason = textrules.verdict(batch, [textrules.Rule("x", "odd", least=0.2, most=0.2)])
    assert (keep.to_pylist(), reason.to_pylist()) == ([False, True, True, False], ["odd", None, None, "odd"])


SCANS = st.builds(textrules.Scan, st.integers(1, 7), st.sampled_from([None, 0, 30]))


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, max_size=6), st.lists(st.tuples(SCANS, st.integers(0, 63), st.integers(0, 63)), min_size=1, max_size=4), st.lists(TEXTS, max_size=6))
def test_a_shared_table_holds_what_each_stage_would_have_counted(texts: list[str], steps: list[tuple[textrules.Scan, int, int]], others: list[str]) -> None:
    """Stages ask for some rows, one after another; between them some rows' texts are replaced."""
    texts = list(texts)
    shared = textrules.Shared(len(texts))
    for at, (scan, asked, changed) in enumerate(steps):
        need = np.array([bool(asked >> row & 1) for row in range(len(texts))], bool)
        column = pa.array(texts, pa.string())
        batch = pa.record_batch([column.filter(pa.array(need)), shared.of(column, need, [step[0] for step in steps[at:]])], names=["text", textrules.FOUND])
        own, alone = textrules.found(batch, scan), textrules.found(batch.select([0]), scan)
        names = {1: ("words", "stops", "bullets"), 2: ("words", "filled", "short", "dup_line_chars"), 4: ("words", "top_2", "repeated", "dup_paragraphs", "dup_lines")}
        for name in {name for bit, group in names.items() if scan.wanted & bit for name in group} - ({"short"} if scan.short_chars is None else set()):
            assert own[name].tolist() == alone[name].tolist()
        replaced = np.array([bool(changed >> row & 1) and row < len(others) for row in range(len(texts))], bool)
        texts = [others[row] if replaced[row] else text for row, text in enumerate(texts)]
        shared.forget(replaced)


def test_neighbours_scan_each_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], int]] = []
    kernel = textrules.count
    monkeypatch.setattr(textrules, "count", lambda text, wanted, short_chars: calls.append((text.to_pylist(), wanted)) or kernel(text, wanted, short_chars))
    text, every = pa.array(["a", "b", "c"]), np.ones(3, bool)
    scans = [textrules.Scan(textrules.WORDS), textrules.Scan(textrules.REPEATS), textrules.Scan(textrules.LINES, 30), textrules.Scan(textrules.LINES, 9)]
    shared = textrules.Shared(3)
    shared.of(text, np.array([True, True, False]), scans)
    shared.of(text, np.array([True, False, False]), scans[1:])
    assert calls == [(["a", "b"], ALL)]
    shared.forget(np.array([True, False, False]))
    shared.of(pa.array(["x", "b", "c"]), every, scans[2:])
    assert calls[1:] == [(["x", "c"], textrules.LINES)]  # for those ahead, no more
    shared.of(text, every, scans[3:])
    assert calls[2:] == [(["a", "b", "c"], textrules.LINES)]
