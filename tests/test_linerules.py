"""Rules that judge lines: by hand, against the twins, and on columns of every shape."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import twins_textrules as twins
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import linerules, spans
from curate.errors import ConfigError

PIECES = [
    "the cat sat on a mat.", "A", "ABC", "b", "é", "Ä", "Σ", "İ", "7", "12", "٣", ".", "...", "…", "!", "?", '"', "'", "”", ")", "(", "]", "。", "！", "؟", "।", "」", "漢", "字", "ไ", "_", "-",
    " ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u2028", "\u3000", "\x1c", "\x00", "👍", "[", "[1]", "[]", "[edit]", "[Edit]", "[citation needed]", "{", "JavaScript", "java", "lorem ipsum", "Lorem", " Ipsum",
    "privacy policy", "Uses Cookies", "terms of use", "cookie", "Mr.", "e.g. ", "U.S. ", "etc.", " no. ", "3 likes", "1.2K Views", " comments", "(4 shares)", "Sign-in", "sign-in ", "read more...", "Read More…", "items in cart", " Items in Cart ", "word word word",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
C4 = st.fixed_dictionaries({"min_words": st.sampled_from([0, 1, 3, 5]), "max_word_chars": st.sampled_from([0, 4, 1000]), "end_marks": st.booleans(), "javascript": st.booleans(), "policy": st.booleans(), "citations": st.booleans()})
REFINED = st.fixed_dictionaries({"max_uppercase": st.sampled_from([0.0, 0.25, 0.5, 2.0]), "min_words": st.sampled_from([0, 2, 4]), "max_edit_words": st.sampled_from([0, 3, 10]), "numeric": st.booleans(), "counters": st.booleans()})
PUBLISHED_C4 = {"min_words": 5, "max_word_chars": 1000, "end_marks": True, "javascript": True, "policy": True, "citations": True}
PUBLISHED_REFINED: dict[str, Any] = {"max_uppercase": 0.5, "min_words": 2, "max_edit_words": 10, "numeric": True, "counters": True}


def c4(text: pa.Array, *, min_words: int, max_word_chars: int, **on: bool) -> linerules.Found:
    bits = {"end_marks": linerules.END_MARKS, "javascript": linerules.JAVASCRIPT, "policy": linerules.POLICY, "citations": linerules.CITATIONS}
    return linerules.c4(text, min_words=min_words, max_word_chars=max_word_chars, flags=sum(bits[name] for name in on if on[name]))


def held(text: pa.Array, found: linerules.Found) -> list[tuple[dict[str, int], str | None]]:
    """Per row its counts and the text that is left, the spans checked as the program checks them."""
    spans.check("lines", text, found.spans)
    left = spans.applied(text, found.spans).to_pylist()
    old = [len((t or "").encode()) for t in text.to_pylist()]
    assert found.cut_bytes.tolist() == [size - len((new or "").encode()) for size, new in zip(old, left, strict=True)]
    return [({name: int(column[row]) for name, column in found.counts.items()}, left[row]) for row in range(len(text))]


@settings(max_examples=400, deadline=None)
@given(TEXTS, C4)
def test_c4_finds_what_the_twin_finds(text: str, rules: dict[str, Any]) -> None:
    column = pa.array([text])
    assert held(column, c4(column, **rules)) == [twins.c4(text, **rules)]


@settings(max_examples=400, deadline=None)
@given(TEXTS, REFINED)
def test_refined_finds_what_the_twin_finds(text: str, rules: dict[str, Any]) -> None:
    column = pa.array([text])
    assert held(column, linerules.refined(column, **rules)) == [twins.refined(text, **rules)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | TEXTS, max_size=8), st.integers(0, 8), st.sampled_from([pa.string(), pa.large_string()]))
def test_slices_and_nulls(texts: list[str | None], start: int, kind: pa.DataType) -> None:
    column = pa.array(texts, kind)[start:]
    for found, twin, rules in ((c4(column, **PUBLISHED_C4), twins.c4, PUBLISHED_C4), (linerules.refined(column, **PUBLISHED_REFINED), twins.refined, PUBLISHED_REFINED)):
        for (counts, left), text in zip(held(column, found), texts[start:], strict=True):
            assert (counts, left) == (twin(text, **rules) if text is not None else (dict.fromkeys(counts, 0), None))  # type: ignore[operator]


def test_c4_by_hand() -> None:
    text = "Menu\nThe cat sat on the mat. It was Mr. Smith's cat [2], they said.\nToo short here.\n\nPlease enable JavaScript in your browser now.\nRead our Privacy Policy before you go on.\nIt went on and on...\nShe said: \"we are here now!\"\n"
    [(counts, left)] = held(pa.array([text]), c4(pa.array([text]), **PUBLISHED_C4))
    assert left == "The cat sat on the mat. It was Mr. Smith's cat , they said.\nShe said: \"we are here now!\"\n"
    assert counts == {"lines": 7, "long_word": 0, "no_end_mark": 2, "few_words": 1, "javascript": 1, "policy": 1, "lorem_ipsum": 0, "curly_bracket": 0, "citations": 1, "sentences": 3}


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", 3), ("One.Two. Three", 2), ("Wait... what?!", 2), ("He (J. R. Smith) met Dr. No. Then he left.", 2), ("It costs 3.50 now.", 1), ("\"Go.\" \"Stay.\"", 2),
        ("你好。再见！", 2), ("यह है। वह है।", 2), ("no end", 1), ("", 0), ("U.S. law. It", 2),
    ],
)  # fmt: skip
def test_sentences_by_hand(text: str, sentences: int) -> None:
    found = c4(pa.array([text]), min_words=0, max_word_chars=0, end_marks=False, javascript=False, policy=False, citations=False)
    assert found.counts["sentences"].tolist() == [sentences]


def test_a_long_word_is_one_without_spaces_in_a_script_that_has_them() -> None:
    text = pa.array(["x" * 1000 + ". a b c d.", "x" * 1000 + "y. a b c d.", "漢" * 1500 + "。"])
    found = c4(text, **PUBLISHED_C4)
    assert found.counts["long_word"].tolist() == [1, 1, 0]  # the full stop is of the word
    assert found.counts["sentences"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("SIGN UP NOW and go", None), ("SIGN UP NOW AND go", "uppercase"), ("ÄÖÜ ß", "uppercase"), ("12 345", "numeric"), ("12.5", "few_words"), ("12.5 %", None), ("3 likes", "counters"), ("1 Comment", "counters"),
        ("1,204.5K views »", "counters"), ("5 likes and more", None), ("likes 5", None), ("Home", "few_words"), ("Home page", None), ("漢字", None), ("Home page Sign-in", None),
    ],
)  # fmt: skip
def test_refined_lines_by_hand(line: str, rule: str | None) -> None:
    [(counts, left)] = held(pa.array([f"a b\n{line}\nc d"]), linerules.refined(pa.array([f"a b\n{line}\nc d"]), **PUBLISHED_REFINED))
    assert left == ("a b\nc d" if rule else f"a b\n{line}\nc d")
    assert {name for name in ("uppercase", "numeric", "counters", "few_words") if counts[name]} == ({rule} - {None})


def test_phrases_go_from_short_lines_only() -> None:
    text = "sign-in to see this\nthe rest of it Read more...\n2 items in cart today\nsign-in read more...\n" + "w " * 9 + "items in cart"
    [(counts, left)] = held(pa.array([text]), linerules.refined(pa.array([text]), **PUBLISHED_REFINED))
    assert left == "to see this\nthe rest of it\n2 today\n" + "w " * 9 + "items in cart"
    assert (counts["edited"], counts["words"], counts["words_cut"]) == (4, 4 + 6 + 5 + 3 + 12, 1 + 2 + 3 + 3)


def test_another_column_is_refused() -> None:
    with pytest.raises(ConfigError, match="text column"):
        linerules.c4(pa.array([1, 2]), min_words=5, max_word_chars=0, flags=0)
