"""FineWeb's quality rules: a text at each threshold, and one beyond it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from curate.pipelines.fineweb_quality import FinewebQuality, FinewebQualityParams
from curate.stage import TEXT, Context


def why(text: str, **params: Any) -> str | None:
    stage = FinewebQuality(FinewebQualityParams(**params), Context("f"))
    found = stage.apply(None, pa.record_batch([pa.array([text])], names=[TEXT]))
    columns = [found.column(name.removeprefix("f_")) for name in stage.judge_reads()]
    return stage.judge(pa.record_batch(columns, names=[str(i) for i in range(len(columns))]))[1][0].as_py()  # type: ignore[no-any-return]


def lines(n: int, *, ended: int = 0, short: int = 0) -> str:
    """n different lines of four words, `ended` of them with a full stop; `short` of them of 30 characters, the others of 31."""
    made = []
    for i in range(n):
        body = f"line {i:04d} of words ".ljust(29 if i < short else 30, "x")
        made.append(body + ("." if i < ended else "x"))
    return "\n".join(made)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lines(25, ended=3), None),  # 0.12
        (lines(26, ended=3), "too few lines end in punctuation"),
        (lines(100, ended=100, short=67), None),
        (lines(100, ended=100, short=68), "too many short lines"),
        (lines(10, ended=10) + "\n" + "y y." + "\ny y.", "characters in duplicate lines"),  # 4 of 318
        (lines(20, ended=20) + "\n" + "y y." + "\ny y.", None),  # 4 of 628
        ("a b c. " * 10 + "\n" * 9, None),  # 9 / 30
        ("a b c. " * 10 + "\n" * 10, "too many line feeds per word"),
        (" \n \n", "empty"),
    ],
)
def test_a_text_at_and_beyond_each_threshold(text: str, reason: str | None) -> None:
    # a line that ends in a space is not punctuated; only its own rule is asked there
    settings = {"min_line_punct_ratio": None} if text.startswith("a b c. ") else {}
    assert why(text, **settings) == reason


def test_what_ends_a_line_in_other_scripts() -> None:
    for end in "。！؟।":
        assert why(f"{'word ' * 10}{end}") is None
    assert why(f"{'word ' * 10},") == "too few lines end in punctuation"


def test_closing_quotation_marks_end_no_line_unless_they_are_asked_to() -> None:
    text = f'{"word " * 10}"\n{"other " * 10}”'
    assert why(text) == "too few lines end in punctuation"
    assert why(text, closing_quotes=True) is None
