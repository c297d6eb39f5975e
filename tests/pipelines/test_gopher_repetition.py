"""Gopher's repetition rules: a text at each threshold, and one beyond it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from curate.pipelines.gopher_repetition import SHARES, GopherRepetition, GopherRepetitionParams
from curate.stage import TEXT, Context

OFF = dict.fromkeys(SHARES)


def why(text: str, **params: Any) -> str | None:
    stage = GopherRepetition(GopherRepetitionParams(**params), Context("g"))
    found = stage.apply(None, pa.record_batch([pa.array([text])], names=[TEXT]))
    columns = [found.column(name.removeprefix("g_")) for name in stage.judge_reads()]
    return stage.judge(pa.record_batch(columns, names=[str(i) for i in range(len(columns))]))[1][0].as_py()  # type: ignore[no-any-return]



@pytest.mark.parametrize(
    ("rule", "text", "beyond", "reason"),
    [
        # ten units, three or four of them met before
        ("max_dup_line_ratio", "x\n" * 4 + "\n".join("abcdef"), "x\n" * 5 + "\n".join("abcde"), "duplicate lines"),
        ("max_dup_paragraph_ratio", "x\n\n" * 4 + "\n\n".join("abcdef"), "x\n\n" * 5 + "\n\n".join("abcde"), "duplicate paragraphs"),
        # 20 or 21 of 100 characters
        ("max_dup_line_chars_ratio", f"{'x' * 20}\n{'x' * 20}\n{'y' * 58}", f"{'x' * 21}\n{'x' * 21}\n{'y' * 56}", "characters in duplicate lines"),
        ("max_dup_paragraph_chars_ratio", f"{'x' * 20}\n\n{'x' * 20}\n\n{'y' * 56}", f"{'x' * 21}\n\n{'x' * 21}\n\n{'y' * 54}", "characters in duplicate paragraphs"),
        # "aaaa bbbbb" twice: 20 of 100; one character more each: 22
        ("max_top_2_gram_ratio", f"aaaa bbbbb {'y' * 78} aaaa bbbbb", f"aaaa bbbbbb {'y' * 76} aaaa bbbbbb", "most frequent 2-gram"),
        ("max_top_3_gram_ratio", f"aa bb ccc {'y' * 80} aa bb ccc", f"aa bb cccc {'y' * 78} aa bb cccc", "most frequent 3-gram"),
        ("max_top_4_gram_ratio", f"a b c dd {'y' * 82} a b c dd", f"a b c ddd {'y' * 80} a b c ddd", "most frequent 4-gram"),
        ("max_dup_5_gram_ratio", f"aaa bbb ccc ddd eee {'y' * 60} aaa bbb ccc ddd eee", f"aaa bbb ccc ddd eeee {'y' * 58} aaa bbb ccc ddd eeee", "duplicate 5-grams"),
        ("max_dup_10_gram_ratio", f"a b c d e f g h i j {'y' * 60} a b c d e f g h i j", f"a b c d e f g h i jj {'y' * 58} a b c d e f g h i jj", "duplicate 10-grams"),
    ],
)  # fmt: skip
def test_a_text_at_and_beyond_each_threshold(rule: str, text: str, beyond: str, reason: str) -> None:
    default = getattr(GopherRepetitionParams(), rule)
    assert why(text, **{**OFF, rule: default}) is None
    assert why(beyond, **{**OFF, rule: default}) == reason


def test_the_first_ngram_is_the_most_frequent_where_none_repeats() -> None:
    assert why("two words") == "most frequent 2-gram"
    assert why(f"two words {'y' * 34}", max_top_3_gram_ratio=None) == "most frequent 2-gram"  # 9 of 44
    assert why(f"two words {'y' * 35}", max_top_3_gram_ratio=None) is None  # 9 of 45
    assert why(f"two words {'y' * 35}") == "most frequent 3-gram"
    assert why("") is None


def test_an_ngram_that_stands_once_can_be_let_pass() -> None:
    assert why("two words", top_once=False) is None
    assert why("a short text of seven words here", top_once=False) is None
    assert why("no no no no", top_once=False) == "most frequent 2-gram"  # "no no" three times
    once = f"aaaa bbbbb {'y' * 77} aaaa bbbbb"  # "aaaa bbbbb" twice, its 3-grams once
    assert why(once, top_once=False, max_top_2_gram_ratio=None) is None
    assert why(once, max_top_2_gram_ratio=None) == "most frequent 3-gram"


def test_all_rules_are_on_by_default() -> None:
    assert GopherRepetitionParams() == GopherRepetitionParams(
        max_dup_paragraph_ratio=0.3, max_dup_paragraph_chars_ratio=0.2, max_dup_line_ratio=0.3, max_dup_line_chars_ratio=0.2,
        max_top_2_gram_ratio=0.2, max_top_3_gram_ratio=0.18, max_top_4_gram_ratio=0.16, max_dup_5_gram_ratio=0.15, max_dup_6_gram_ratio=0.14,
        max_dup_7_gram_ratio=0.13, max_dup_8_gram_ratio=0.12, max_dup_9_gram_ratio=0.11, max_dup_10_gram_ratio=0.1, top_once=True,
    )  # fmt: skip
