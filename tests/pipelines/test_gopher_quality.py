"""Gopher's quality rules: a text at each threshold, and one beyond it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from curate.errors import ConfigError
from curate.pipelines.gopher_quality import GopherQuality, GopherQualityParams
from curate.stage import TEXT, Context


def why(text: str, **params: Any) -> str | None:
    stage = GopherQuality(GopherQualityParams(**params), Context("g"))
    found = stage.apply(None, pa.record_batch([pa.array([text])], names=[TEXT]))
    columns = [found.column(name.removeprefix("g_")) for name in stage.judge_reads()]
    keep, reason = stage.judge(pa.record_batch(columns, names=[str(i) for i in range(len(columns))]))
    assert keep[0].as_py() == (reason[0].as_py() is None)
    return reason[0].as_py()  # type: ignore[no-any-return]


GOOD = "the very good text of ten words stands here now\n"  # ten words, 38 letters


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD * 5, None),
        (GOOD * 4 + "the very good text of ten words stands here", "fewer words than min_words"),
        ("the of aaa " * 30, "mean word too short"),
        ("the of " + "abcdefghij " * 50, None),
        ("the of " + "abcdefghijk " * 50, "mean word too long"),
        (GOOD * 10 + "x" + "#" * 10, None),  # 10 / 101
        (GOOD * 10 + "x" + "#" * 11, "too many hash signs"),
        (GOOD * 10 + "x" + "..." * 10, None),
        (GOOD * 10 + "x" + "..." * 10 + "…", "too many ellipses"),  # 11 of 101
        (("- " + GOOD) * 9 + GOOD, None),
        (("• " + GOOD) * 19 + GOOD, "too many bullet lines"),
        ((GOOD[:-1] + "…\n") * 3 + GOOD * 7, None),
        ((GOOD[:-1] + " ... \n") * 4 + GOOD * 6, "too many lines end in an ellipsis"),
        (GOOD * 8 + "12345 " * 20, None),
        (GOOD * 8 + "12345 " * 21, "too few words with a letter"),
        (GOOD.replace("of", "on") * 5, "too few stop words"),
        (GOOD.replace("of", "The") * 5, "too few stop words"),
        ("漢字" * 40, None),  # no word to take a mean of, and English stop words say nothing
    ],
)  # fmt: skip
def test_a_text_at_and_beyond_each_threshold(text: str, reason: str | None) -> None:
    assert why(text) == reason


def test_the_mean_at_its_lower_bound() -> None:
    assert why("the of " + "abcd " + "abc " * 50) is None  # 159 letters of 53 words
    assert why("the of " + "abc " * 50) == "mean word too short"  # 155 of 52


def test_more_words_than_the_bound_and_null_is_off() -> None:
    assert why(GOOD * 5, max_words=49) == "more words than max_words"
    assert why(GOOD * 5, max_words=50) is None
    assert why("no", min_words=None, min_mean_word_chars=None, min_stop_words=None) is None


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ConfigError, match="min_words of 0 or more"):
        GopherQualityParams(min_words=-1)
