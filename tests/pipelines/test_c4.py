"""C4's rules as a stage: the verdict at each threshold, the user's list of words, and the text that a run goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from run_folders import docs, published_rows, recipe_for, run, write_rows

from curate import spans
from curate.errors import ConfigError
from curate.pipelines.c4 import C4, C4Params
from curate.stage import TEXT, Context


def judged(text: str, base: Path = Path(), **params: Any) -> tuple[str | None, dict[str, Any]]:
    """The reason of one text, and its columns."""
    stage = C4(C4Params(**params), Context("c", base=str(base)))
    found = stage.apply(None, pa.record_batch([pa.array([text])], names=[TEXT]))
    columns = [found.column(name.removeprefix("c_")) for name in stage.judge_reads()]
    keep, reason = stage.judge(pa.record_batch(columns, names=[str(i) for i in range(len(columns))]))
    assert keep[0].as_py() == (reason[0].as_py() is None)
    return reason[0].as_py(), found.to_pylist()[0]


GOOD = "This is a line of words.\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD * 3, None),
        (GOOD * 2, "too few sentences"),
        ("Some words here. And more of them. And an end.", None),
        (GOOD * 3 + "Then comes some Lorem Ipsum of it.", "lorem ipsum"),
        (GOOD * 3 + "Lorem ipsum dolor sit amet", None),  # no end mark: the line is cut before anyone looks
        (GOOD * 3 + "if (x) { return of it all. }.", "curly bracket"),
        (GOOD * 3 + "{", None),
        ("", "too few sentences"),
    ],
)
def test_the_verdict_of_the_published_rules(text: str, reason: str | None) -> None:
    assert judged(text)[0] == reason


def test_rules_that_are_off() -> None:
    text = "lorem ipsum { of\n"
    assert judged(text, end_marks=False, min_words=None, min_sentences=None, lorem_ipsum=False, curly_bracket=False)[0] is None
    assert judged(text, end_marks=False, min_words=None, min_sentences=None, lorem_ipsum=False)[0] == "curly bracket"
    _, found = judged(f"{GOOD}We use cookies and javascript here [1].", javascript=False, policy=False, citations=False, min_sentences=2)
    assert found["spans"] == []


def test_bad_words_are_whole_words_of_the_text_that_is_left(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Darn it\nheck\n漢字\n\n", encoding="utf-8")
    for text, number in ((GOOD * 3, 0), (GOOD * 3 + "Heck, darn it all the way!", 2), (GOOD * 3 + "By heckling and darning it all up.", 0), (GOOD * 3 + "heck", 0), (GOOD * 3 + "這漢字是。對的。", 1)):
        reason, found = judged(text, tmp_path, bad_words="words.txt")
        assert (found["bad_words"], reason) == (number, "bad words" if number else None)
    assert judged(GOOD * 3 + "Heck, darn it all the way!", tmp_path, bad_words="words.txt", max_bad_words=2)[0] is None
    key = C4(C4Params(bad_words="words.txt"), Context("c", base=str(tmp_path))).extra_key()
    (tmp_path / "words.txt").write_text("heck\n", encoding="utf-8")
    assert C4(C4Params(bad_words="words.txt"), Context("c", base=str(tmp_path))).extra_key() != key


@pytest.mark.parametrize(("content", "why"), [(None, "to name a file"), (b"\xff\xfe", "to name a file"), (b" \n\n", "at least one word")])
def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None, why: str) -> None:
    if content is not None:
        (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=why):
        C4(C4Params(bad_words="words.txt"), Context("c", base=str(tmp_path)))


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="min_words of 0 or more"):
        C4Params(min_words=-1)


def test_a_run_goes_on_with_what_is_left(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": f"Menu\n{GOOD * 3}", "source": "s"}, {"id": "b", "text": GOOD * 3, "source": "s"}, {"id": "c", "text": "Menu\n" + GOOD, "source": "s"}]
    write_rows(tmp_path / "pool" / "0.parquet", rows)
    run(recipe_for(tmp_path, stages=[{"c4": {}}, {"dedup_exact": {}}], target=False), tmp_path / "run")
    assert [row["text"] for row in published_rows(tmp_path / "run")] == [GOOD * 3]
    told = {row["id"]: row for row in docs(tmp_path / "run").to_pylist()}
    assert (told["c"]["c4_reason"], told["a"]["c4_no_end_mark"], told["a"]["c4_cut_bytes"]) == ("too few sentences", 1, 5)
    assert spans.FIELD in C4(C4Params(), Context("c")).fields().names
